//! What the tracker shows of itself: figures, and each agent as a scrape sees it.

use std::sync::Arc;
use std::time::Duration;

use super::Tracker;
use super::agent::AgentKey;
use super::transition::{LastWord, Twin};
use super::verdict::Verdict;
use crate::beat::{Origin, Sender};
use crate::time::MonoTime;

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

impl Tracker {
    /// When the agent that a sender is will be called stalled, as far as that is known by now; `None` for who is not known,
    /// or is silent or gone already.
    #[must_use]
    pub fn deadline_of(&self, sender: Sender) -> Option<MonoTime> {
        let Sender { origin, pid, lane } = sender;
        let source = self.sources.find(origin)?;
        let number = self.agents.find(AgentKey { source, pid, lane })?;
        let is_awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        is_awaited.then(|| self.deadline(number))
    }
}
