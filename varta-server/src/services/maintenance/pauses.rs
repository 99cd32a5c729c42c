use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::base::time::rfc3339;
use crate::services::maintenance::options::PlannedPauses;
use crate::services::maintenance::pause::Pause;
use crate::services::maintenance::schedule::{List, Replanned, Turn};

/// Where log lines about pauses come from, for those who filter them.
pub(super) const TARGET: &str = "varta::maintenance";

/// Who is paused. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held for as long as it takes to look through it, and never while something outside is done.
    list: RwLock<List>,
    /// Told when somebody else than time has changed the list.
    changed: Notify,
}

impl Pauses {
    /// Whether agents of this name are paused.
    pub(crate) fn is_paused(&self, name: &str, now: SystemTime) -> bool {
        self.look(|list| list.is_paused(name, now))
    }

    /// Goes by what the configuration's file plans now, and says in the log which pauses are no more for it, and which it
    /// plans too late.
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

    pub(super) fn look<T>(&self, look: impl FnOnce(&List) -> T) -> T {
        look(&self.0.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the list, and has time look at it anew.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        let changed = change(&mut self.0.list.write().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_one();
        changed
    }

    /// Does what time has brought, and says in the log what begins and what is over.
    pub(super) fn turn(&self, now: SystemTime) -> Turn {
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

    /// Returns when somebody else than time has changed the list since this was last awaited.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}
