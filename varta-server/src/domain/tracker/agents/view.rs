use std::sync::Arc;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::tracker::verdicts::transition::{LastWord, Twin};
use crate::domain::tracker::verdicts::verdict::Verdict;

/// How much has happened that is no transition, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sessions whose nonce went round.
    pub nonce_wraps: u64,
    /// Silent agents that were forgotten.
    pub forgotten: u64,
    /// Beats whose stamp was older than that of a beat handled before, and was taken as equal.
    pub clamped_stamps: u64,
    /// Looks at processes for which there were too many others.
    pub looks_refused: u64,
    /// Times at which many agents of one origin came to the same bad verdict in one moment.
    pub incidents: u64,
    /// Beats that agents sent, by their nonces, and that did not arrive.
    pub lost: u64,
    /// Verdicts `stalled` about agents that were beating.
    pub mistakes: u64,
}

/// One agent as a scrape sees it.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// Where it beats from.
    pub origin: Origin,
    /// The process id that it goes by there.
    pub pid: u32,
    /// Which of the agents with this origin and pid it is.
    pub twin: Twin,
    /// What is concluded about it.
    pub verdict: Verdict,
    /// The last thing that it said.
    pub last: LastWord,
    /// When it last beat; a beat refused only for its rate counts.
    pub last_beat: MonoTime,
    /// How long it had been silent before that, if it has not beaten since this server knows it.
    pub silent_before: Duration,
    /// Beats that it sent, by its nonces, and that did not arrive.
    pub lost: u64,
    /// How often it was called stalled.
    pub stalls: u32,
    /// How often that was a mistake: it was beating all along.
    pub mistakes: u32,
    /// How long it may be silent.
    pub stall_after: Duration,
}
