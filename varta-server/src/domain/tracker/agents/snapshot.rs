//! The state of an agent that a server persists, so that the next server knows the agent.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::RemoteEndpoint;
use crate::domain::labels::Labels;
use crate::domain::tracker::agents::jobs::JobSnapshot;
use crate::domain::tracker::agents::names::NameSource;
use crate::domain::tracker::verdicts::transition::{AgentId, LastReport};
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The state of an agent that outlives the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSnapshot {
    /// The agent's identity.
    pub agent: AgentId,
    /// The source of its name.
    pub name_source: NameSource,
    /// The source port and the key of its last beat.
    pub lane: RemoteEndpoint,
    /// The start time of its process, in the kernel's ticks since boot; `None` for other hosts, and where it
    /// is not known.
    pub start_time: Option<NonZeroU64>,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Its last report.
    pub last: LastReport,
    /// The labels that it sent.
    pub labels: Labels,
    /// The unit that it runs in, if its name is another.
    pub unit: Option<Arc<str>>,
    /// Whether no beat is awaited of it: it is watched by its process alone.
    pub is_unawaited: bool,
    /// Its status in its own words, as it said it by sd_notify(3).
    pub said: Option<Arc<str>>,
    /// The stall timeout that it requested, or three of the intervals that it announced, if any.
    pub asked: Option<Duration>,
    /// Until when it may be silent ("busy until"); [`MonoTime::START`] if it did not request that.
    pub busy_until: MonoTime,
    /// How often it was called stalled.
    pub stalls: u32,
    /// The number of its beats that did not arrive.
    pub lost: u32,
    /// The start of its silence on this server's clock: its last beat, or the moment at which this server
    /// learned of it.
    pub last_beat: MonoTime,
    /// How long it was silent before that; zero if it has beaten to this server.
    pub silent_before: Duration,
    /// Whether it may have been silent for longer: a server that was killed did not say when the last beat
    /// was.
    pub silent_at_least: bool,
    /// For how long the counter of its progress had stood when it beat last, if it is stalled for that.
    pub stood: Option<Duration>,
}

/// What the kernel knows of the process of a persisted agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// Nothing: it is on another host, or cannot be identified.
    Unknown,
    /// It still exists.
    Lives,
    /// It has ended; its exit status is not known.
    Gone,
    /// It has ended with all others: the host was booted since.
    Rebooted,
}

/// A change of what is persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryChange {
    /// The agent has this state now.
    Known(Box<AgentSnapshot>),
    /// The agent with this origin, pid and twin is forgotten.
    Forgotten(Forgotten),
    /// The job is this now.
    Job(Box<JobSnapshot>),
    /// The job of this name is no more.
    JobForgotten(Arc<str>),
}

/// An agent that is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The agent's identity.
    pub agent: AgentId,
    /// Why it is forgotten.
    pub reason: ForgetReason,
}

/// Why an agent is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForgetReason {
    /// Another agent has taken its place.
    Succeeded,
    /// It has not beaten for as long as it is kept.
    Expired,
    /// Another agent needed the room.
    Evicted,
    /// A user asked for it.
    Requested,
}
