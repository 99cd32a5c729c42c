use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Lane;
use crate::domain::labels::Labels;
use crate::domain::tracker::agents::names::NameSource;
use crate::domain::tracker::verdicts::transition::{AgentId, LastWord};
use crate::domain::tracker::verdicts::verdict::Verdict;

/// What is kept of an agent beyond the life of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Who it is.
    pub agent: AgentId,
    /// Where its name comes from.
    pub name_source: NameSource,
    /// From which port it beat last, and under which key.
    pub lane: Lane,
    /// When its process started, in the kernel's ticks since boot; `None` for other hosts, and where it is not known.
    pub start_time: Option<NonZeroU64>,
    /// What was concluded about it.
    pub verdict: Verdict,
    /// The last thing that it said.
    pub last: LastWord,
    /// By what operators sort it, as far as it said so.
    pub labels: Labels,
    /// The unit in which it runs, if its name is another.
    pub unit: Option<Arc<str>>,
    /// How long it asked to be allowed to be silent, if it did.
    pub asked: Option<Duration>,
    /// Until when it asked not to be missed; [`MonoTime::START`] when it did not.
    pub busy_until: MonoTime,
    /// How often it was called stalled.
    pub stalls: u32,
    /// How many of its beats did not arrive.
    pub lost: u32,
    /// Since when the silence is counted on this server's clock: its last beat, or the moment at which this server
    /// learned of it.
    pub last_beat: MonoTime,
    /// How long it had been silent before that, by the wall clock; zero for who has beaten to this server.
    pub silent_before: Duration,
}

/// What the kernel knows of the process of a remembered agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it is of another host, or cannot be recognised.
    Unknown,
    /// It is still there.
    Lives,
    /// It has ended; nobody knows how.
    Gone,
}

/// A change in what is to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// This is known of an agent now.
    Known(Box<Remembered>),
    /// The agent with this origin, pid and number among twins is not known any more.
    Forgotten(AgentId),
}
