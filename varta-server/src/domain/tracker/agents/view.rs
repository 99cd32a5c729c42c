//! What a scrape reads of the tracker: counters, and a view of each agent.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::process::ProcessPlace;
use crate::domain::tracker::verdicts::transition::{AgentId, LastReport, Twin};
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
    pub unit: Option<&'a Arc<str>>,
    /// The labels that it gave itself.
    pub labels: Option<&'a Labels>,
    /// Where it runs on this host.
    pub place: Option<&'a ProcessPlace>,
}

impl AgentView<'_> {
    /// The same without what only metrics show, to be kept when the tracker goes on.
    pub(crate) fn record(self) -> AgentRecord {
        let AgentView { name, origin, pid, twin, verdict, last, last_beat, silent_before, .. } = self;
        AgentRecord {
            agent: AgentId { name: Arc::clone(name), origin, pid, twin },
            verdict,
            last,
            last_beat: Some(last_beat),
            silent_before,
            lost: self.lost,
            stalls: self.stalls,
            stall_after: self.stall_after,
            unit: self.unit.map(Arc::clone),
            labels: self.labels.cloned().unwrap_or_default(),
        }
    }
}

/// One agent as a list shows it.
#[derive(Clone, Debug)]
pub(crate) struct AgentRecord {
    /// The agent.
    pub(crate) agent: AgentId,
    /// The verdict on it.
    pub(crate) verdict: Verdict,
    /// Its last report.
    pub(crate) last: LastReport,
    /// The time of its last beat; `None` for an expected agent that has not come.
    pub(crate) last_beat: Option<MonoTime>,
    /// How long it was silent before that, if it has not beaten since this server knows it.
    pub(crate) silent_before: Duration,
    /// Beats that did not arrive.
    pub(crate) lost: u64,
    /// How often it was called stalled.
    pub(crate) stalls: u32,
    /// Its stall timeout.
    pub(crate) stall_after: Duration,
    /// The unit that it runs in.
    pub(crate) unit: Option<Arc<str>>,
    /// The labels that it gave itself.
    pub(crate) labels: Labels,
}

impl AgentRecord {
    /// An expected agent that has not come.
    pub(crate) fn of_expected(name: &Arc<str>) -> Self {
        AgentRecord {
            agent: AgentId::expected(name),
            verdict: Verdict::Expected,
            last: LastReport::NONE,
            last_beat: None,
            silent_before: Duration::ZERO,
            lost: 0,
            stalls: 0,
            stall_after: Duration::ZERO,
            unit: None,
            labels: Labels::default(),
        }
    }
}
