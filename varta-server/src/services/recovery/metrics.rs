//! The metrics of recovery.

use metrics::{Counter, Gauge};

use crate::metrics::Registry;
use crate::metrics::family::families;
use crate::services::recovery::job::Refusal;
use crate::services::recovery::rule::Action;

families! {
    RECOVERY_ACTIONS = "varta_recovery_actions_total", "Steps of recovery that were taken, by what came of them.";
    RECOVERY_REFUSED = "varta_recovery_refused_total", "Agents about which nothing was done, for now or for good, by reason.";
    RECOVERY_RUNNING = "varta_recovery_running", "Commands that run at the moment.";
    RECOVERY_AGENTS = "varta_recovery_agents", "Agents that recovery is concerned with at the moment.";
}

/// The value of the metric label `sink`.
pub(super) const SINK: &str = "recovery";

/// The result of an action, as the metric label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActionResult {
    /// The signal was sent, the command exited with status 0, or the notification was issued.
    Done,
    /// The command could not be started or exited with another status, or the signal could not be sent.
    Failed,
    /// The command timed out.
    TimedOut,
    /// The process for the signal had ended.
    Skipped,
    /// The agent was healthy or gone.
    Withdrawn,
    /// A dry run.
    DryRun,
}

impl ActionResult {
    const ALL: [ActionResult; 6] = [
        ActionResult::Done,
        ActionResult::Failed,
        ActionResult::TimedOut,
        ActionResult::Skipped,
        ActionResult::Withdrawn,
        ActionResult::DryRun,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            ActionResult::Done => "done",
            ActionResult::Failed => "failed",
            ActionResult::TimedOut => "timed_out",
            ActionResult::Skipped => "skipped",
            ActionResult::Withdrawn => "withdrawn",
            ActionResult::DryRun => "dry_run",
        }
    }
}

const KINDS: [&str; 3] = ["notify", "signal", "command"];

/// The metrics of recovery.
pub(crate) struct RecoveryMetrics {
    /// By kind and result.
    actions: Vec<(&'static str, ActionResult, Counter)>,
    refused: Vec<(Refusal, Counter)>,
    /// Running commands.
    pub(super) running: Gauge,
    /// Open episodes.
    pub(super) cases: Gauge,
}

impl RecoveryMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let row = |kind, result: ActionResult| {
            let labels = [("action", kind), ("result", result.as_str())];
            (kind, result, registry.counter(RECOVERY_ACTIONS, &labels))
        };
        let refused =
            |reason: Refusal| (reason, registry.counter(RECOVERY_REFUSED, &[("reason", reason.as_str())]));
        RecoveryMetrics {
            actions: KINDS
                .into_iter()
                .flat_map(|kind| ActionResult::ALL.map(|result| row(kind, result)))
                .collect(),
            refused: Refusal::ALL.map(refused).into(),
            running: registry.gauge(RECOVERY_RUNNING, &[]),
            cases: registry.gauge(RECOVERY_AGENTS, &[]),
        }
    }

    pub(super) fn action(&self, action: &Action, result: ActionResult) {
        let is_it = |(kind, of, _): &&(&str, ActionResult, Counter)| *kind == action.kind() && *of == result;
        if let Some((.., counter)) = self.actions.iter().find(is_it) {
            counter.increment(1);
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        if let Some((_, counter)) = self.refused.iter().find(|(reason, _)| *reason == refusal) {
            counter.increment(1);
        }
    }
}
