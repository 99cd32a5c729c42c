//! The end of alerts, and its delivery to each receiver.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::WallClock;
use crate::base::time::MonoTime;
use crate::services::alerts::alert::{Alert, Fingerprint, Id, Subject};
use crate::services::alerts::lifecycle::ending::{ResolveReason, ResolvedAlert};
use crate::services::alerts::lifecycle::state::{AlertState, MAX_RESOLVED};
use crate::services::alerts::notification::{Delivery, Kind};

/// For how long after its end Alertmanagers get an ended alert again, as Prometheus does it: one that was
/// started again before its group's interval was over has not told anybody, and has forgotten it.
pub(super) const REPEAT_FOR: Duration = Duration::from_secs(15 * 60);

impl AlertState {
    /// Ends an alert, and queues its notification.
    pub(super) fn end(&mut self, fingerprint: Fingerprint, ending: &ResolveReason<'_>, now: WallClock) {
        let Some(mut alert) = self.firing.remove(&fingerprint) else { return };
        self.is_changed = true;
        let ended = Arc::make_mut(&mut alert);
        ended.ends_at = Some(now.wall.max(ended.starts_at));
        let kind = match (&ended.subject, ending) {
            (Subject::Agent(_), ResolveReason::Worse { .. }) => Kind::Escalated,
            (Subject::Agent(_), ResolveReason::Paused) => Kind::Paused,
            (Subject::Agent(_), _) => Kind::Resolved,
            (Subject::Incident { .. } | Subject::Many, _) => Kind::Incident,
        };
        self.singles -= usize::from(matches!(ended.subject, Subject::Agent(_)));
        let summary = ending.summary(ended);
        let is_told = matches!(ending, ResolveReason::Worse { is_told: true, .. });
        let notices = self.audience.notices && !is_told;
        if notices {
            self.deliveries.push_back(Delivery::of(kind, ended, &summary, ending.transition(), now.wall));
        }
        ended.annotations.insert(ending.annotation().to_owned(), summary);
        self.keep_ended(alert, notices, now);
    }

    /// Keeps an ended alert until all receivers have its end, and Alertmanagers had it again for a while.
    pub(super) fn keep_ended(&mut self, alert: Arc<Alert>, notices: bool, now: WallClock) {
        let alertmanagers = self.audience.alertmanagers.clone();
        if alertmanagers.is_empty() && !notices {
            return;
        }
        let since_end = alert.ends_at.map_or(Duration::ZERO, |ends_at| now.wall.since(ends_at));
        let left =
            if alertmanagers.is_empty() { Duration::ZERO } else { REPEAT_FOR.saturating_sub(since_end) };
        let ended = ResolvedAlert { alert, alertmanagers, notices, repeat_until: now.mono + left };
        self.ended.insert(Fingerprint::of(&ended.alert.labels), ended);
        if self.ended.len() > MAX_RESOLVED {
            let oldest = self.ended.iter().min_by_key(|(_, ended)| (!ended.is_told(), ended.alert.ends_at));
            if let Some((fingerprint, oldest)) = oldest.map(|(fingerprint, ended)| (*fingerprint, ended)) {
                self.undelivered += oldest.alertmanagers.len() as u64;
                self.ended.remove(&fingerprint);
            }
        }
    }

    /// Forgets the ended alerts that all receivers have, and that are not repeated any longer.
    pub(super) fn forget_ended(&mut self, now: MonoTime) {
        if now < self.forget_at {
            return;
        }
        self.ended.retain(|_, ended| !ended.is_told() || now < ended.repeat_until);
        let told = self.ended.values().filter(|ended| ended.is_told());
        self.forget_at = told.map(|ended| ended.repeat_until).min().unwrap_or(MonoTime::NEVER);
        self.is_changed = true;
    }

    /// Records that an Alertmanager has the end of an alert, or that it was given up.
    pub(crate) fn handle_ended(&mut self, id: Id, alertmanager: usize) {
        self.tell_end(id, |ended| _ = ended.alertmanagers.remove(&alertmanager));
    }

    /// Records that the receivers of notices have the end of an alert, or that it was given up.
    pub(crate) fn handle_said_ended(&mut self, id: Id) {
        self.tell_end(id, |ended| ended.notices = false);
    }

    fn tell_end(&mut self, id: Id, told: impl FnOnce(&mut ResolvedAlert)) {
        let Some(ended) = self.ended.get_mut(&id.fingerprint) else { return };
        if ended.alert.starts_at != id.starts_at {
            return;
        }
        let was_told = ended.is_told();
        told(ended);
        if ended.is_told() && !was_told {
            self.forget_at = self.forget_at.min(ended.repeat_until);
        }
        self.is_changed = true;
    }
}
