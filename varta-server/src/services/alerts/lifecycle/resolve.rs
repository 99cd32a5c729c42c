//! The end of alerts, and its delivery to each receiver.

use std::sync::Arc;

use crate::base::clock::WallClock;
use crate::services::alerts::alert::{Fingerprint, Id, Subject};
use crate::services::alerts::lifecycle::state::{AlertState, MAX_RESOLVED, ResolveReason, ResolvedAlert};
use crate::services::alerts::notification::{Delivery, Kind};

impl AlertState {
    /// Ends an alert, and queues its notification.
    pub(super) fn end(&mut self, fingerprint: Fingerprint, ending: &ResolveReason<'_>, now: WallClock) {
        let Some(mut alert) = self.firing.remove(&fingerprint) else { return };
        self.is_changed = true;
        let ended = Arc::make_mut(&mut alert);
        ended.ends_at = Some(now.wall.max(ended.starts_at));
        let kind = match ended.subject {
            Subject::Agent(_) => {
                self.singles -= 1;
                Kind::Resolved
            }
            Subject::Incident { .. } | Subject::Many => Kind::Incident,
        };
        let summary = ending.summary(ended);
        if self.audience.webhook {
            self.deliveries.push_back(Delivery::of(kind, ended, &summary, ending.transition(), now.wall));
        }
        ended.annotations.insert("resolved".to_owned(), summary);
        let alertmanagers = (0..self.audience.alertmanagers).collect();
        self.keep_ended(ResolvedAlert { alert, alertmanagers, webhook: self.audience.webhook });
    }

    /// Keeps an ended alert until all receivers have its end.
    pub(super) fn keep_ended(&mut self, ended: ResolvedAlert) {
        if ended.alertmanagers.is_empty() && !ended.webhook {
            return;
        }
        self.ended.insert(Fingerprint::of(&ended.alert.labels), ended);
        if self.ended.len() > MAX_RESOLVED {
            let oldest = self.ended.iter().min_by_key(|(_, ended)| ended.alert.ends_at);
            if let Some((fingerprint, oldest)) = oldest.map(|(fingerprint, ended)| (*fingerprint, ended)) {
                self.undelivered += oldest.alertmanagers.len() as u64;
                self.ended.remove(&fingerprint);
            }
        }
    }

    /// Records that an Alertmanager has the end of an alert, or that it was given up.
    pub(crate) fn handle_ended(&mut self, id: Id, alertmanager: usize) {
        self.tell_end(id, |ended| _ = ended.alertmanagers.remove(&alertmanager));
    }

    /// Records that the webhook has the end of an alert, or that it was given up.
    pub(crate) fn handle_said_ended(&mut self, id: Id) {
        self.tell_end(id, |ended| ended.webhook = false);
    }

    fn tell_end(&mut self, id: Id, told: impl FnOnce(&mut ResolvedAlert)) {
        let Some(ended) = self.ended.get_mut(&id.fingerprint) else { return };
        if ended.alert.starts_at != id.starts_at {
            return;
        }
        told(ended);
        if ended.alertmanagers.is_empty() && !ended.webhook {
            self.ended.remove(&id.fingerprint);
        }
        self.is_changed = true;
    }
}
