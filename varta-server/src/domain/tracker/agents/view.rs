//! What a scrape reads of the tracker: counters, and a view of each agent.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::process::ProcessPlace;
use crate::domain::tracker::verdicts::transition::{LastReport, Twin};
use crate::domain::tracker::verdicts::verdict::Verdict;

/// Counters of what is no transition, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Sessions whose nonce wrapped.
    pub nonce_wraps: u64,
    /// Agents that were forgotten.
    pub forgotten: u64,
    /// Beats whose receive time was earlier than that of a beat before, and was taken as equal.
    pub clamped_stamps: u64,
    /// Inspections of processes that the budget refused.
    pub looks_refused: u64,
    /// Incidents: many agents of one origin came to the same bad verdict at once.
    pub incidents: u64,
    /// Beats that agents sent, by their nonces, and that did not arrive.
    pub lost: u64,
    /// False positives: verdicts `stalled` on agents that were beating.
    pub false_positives: u64,
}

/// One agent as a scrape reads it.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    /// The agent's name.
    pub name: &'a Arc<str>,
    /// The transport and address that it beats from.
    pub origin: Origin,
    /// The process id on its host.
    pub pid: u32,
    /// Distinguishes agents that share origin and pid.
    pub twin: Twin,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Its last report.
    pub last: LastReport,
    /// The time of its last beat; a beat that was refused only for its rate counts.
    pub last_beat: MonoTime,
    /// How long it was silent before that, if it has not beaten since this server knows it.
    pub silent_before: Duration,
    /// Beats that it sent, by its nonces, and that did not arrive.
    pub lost: u64,
    /// How often it was called stalled.
    pub stalls: u32,
    /// How often that was a false positive: it was beating all along.
    pub false_positives: u32,
    /// Its stall timeout.
    pub stall_after: Duration,
    /// The unit of this host's service manager that it runs in.
    pub unit: Option<&'a str>,
    /// The labels that it gave itself.
    pub labels: Option<&'a Labels>,
    /// Where it runs on this host.
    pub place: Option<&'a ProcessPlace>,
}
