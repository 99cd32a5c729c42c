//! The handle of all pauses, which the server's services share.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::base::time::rfc3339;
use crate::services::maintenance::options::PlannedPauses;
use crate::services::maintenance::pause::Pause;
use crate::services::maintenance::schedule::{Replanned, Schedule, Tick};

/// The target of log lines about pauses.
pub(super) const TARGET: &str = "varta::maintenance";

/// The pauses. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<PausesInner>);

#[derive(Debug, Default)]
struct PausesInner {
    /// Locked only while it is searched or changed, never across I/O.
    list: RwLock<Schedule>,
    /// Notified when the schedule was changed by something other than time.
    changed: Notify,
}

impl Pauses {
    /// Whether agents of this name are paused.
    pub(crate) fn is_paused(&self, name: &str, now: SystemTime) -> bool {
        self.look(|list| list.is_paused(name, now))
    }

    /// Applies the pauses of a loaded configuration, and logs which it has removed and which end in the past.
    pub(crate) fn plan(&self, planned: &PlannedPauses, now: SystemTime) {
        let Replanned { gone, too_late } = self.change(|list| list.plan(planned, now));
        for Pause { pattern, until, .. } in too_late {
            let pattern = pattern.as_str().escape_debug();
            let until = until.map(rfc3339).unwrap_or_default();
            tracing::warn!(
                target: TARGET,
                %pattern,
                until,
                "{pattern} is not paused: what the configuration's file plans for it was over at {until}; take it out there, or \
                 mend its `until`"
            );
        }
        for Pause { pattern, .. } in gone {
            let pattern = pattern.as_str().escape_debug();
            tracing::info!(
                target: TARGET,
                %pattern,
                "{pattern} is no longer paused: that was taken out of the configuration's file"
            );
        }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Schedule) -> T) -> T {
        look(&self.0.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the schedule, and wakes the timer.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Schedule) -> T) -> T {
        let changed = change(&mut self.0.list.write().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_one();
        changed
    }

    /// Advances the schedule to `now`, and logs which pauses start and end.
    pub(super) fn turn(&self, now: SystemTime) -> Tick {
        let turn = self.0.list.write().unwrap_or_else(PoisonError::into_inner).turn(now);
        for Pause { pattern, until, reason, by, .. } in &turn.begun {
            let pattern = pattern.as_str().escape_debug();
            let reason = reason.as_ref().map(|reason| reason.as_str().escape_debug());
            let until = until.map(rfc3339);
            tracing::info!(
                target: TARGET,
                %pattern,
                until,
                %by,
                reason = reason.as_ref().map(tracing::field::display),
                "{pattern} is paused {}, by {by}{}",
                until.as_ref().map_or("until further notice".to_owned(), |until| format!("until {until}")),
                reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}")),
            );
        }
        for Pause { pattern, by, .. } in &turn.over {
            let pattern = pattern.as_str().escape_debug();
            tracing::info!(target: TARGET, %pattern, %by, "{pattern} is no longer paused: the time that {by} gave is over");
        }
        turn
    }

    /// Waits for a change of the schedule by something other than time.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}
