//! Other receivers while alerts fire: what fires is told to those that are new, and those that are gone are told
//! nothing more.

use crate::base::clock::WallClock;
use crate::services::alerts::alert::Subject;
use crate::services::alerts::annotations::{ACKNOWLEDGED, ESCALATED_FROM};
use crate::services::alerts::lifecycle::agent_state::FlapDetection;
use crate::services::alerts::lifecycle::state::{AlertState, Receivers};
use crate::services::alerts::notification::{Delivery, Kind};

impl AlertState {
    /// Tells these receivers from now on. No alert begins or ends by it. Returns how many ends of alerts
    /// Alertmanagers do not get that are gone.
    pub(in crate::services::alerts) fn handle_receivers(
        &mut self,
        receivers: Receivers,
        damping: FlapDetection,
        now: WallClock,
    ) -> usize {
        let mut untold = 0;
        for ended in self.ended.values_mut() {
            let owed = ended.alertmanagers.len();
            ended.alertmanagers.retain(|number| receivers.alertmanagers.contains(number));
            untold += owed - ended.alertmanagers.len();
            ended.notices &= receivers.notices;
        }
        (self.audience, self.damping) = (receivers, damping);
        self.undelivered += untold as u64;
        self.forget_at = self.forget_at.min(now.mono);
        self.is_changed = true;
        untold
    }

    /// Notifications of all alerts that fire and are not acknowledged, for receivers of notices that have none.
    /// `are_first` means that there were no others before: then the state notes that they have it.
    pub(in crate::services::alerts) fn notices_of_firing(
        &mut self,
        are_first: bool,
        now: WallClock,
    ) -> Vec<Delivery> {
        let mut notices = Vec::new();
        for alert in self.firing.values() {
            if alert.annotations.contains_key(ACKNOWLEDGED) {
                self.unsent += 1;
                continue;
            }
            let kind = match &alert.subject {
                Subject::Incident { .. } | Subject::Many => Kind::Incident,
                Subject::Agent(_) if alert.annotations.contains_key(ESCALATED_FROM) => Kind::Escalated,
                Subject::Agent(_) if alert.is_flapping => Kind::Flapping,
                Subject::Agent(_) => Kind::Firing,
            };
            let summary = alert.annotations.get("summary").cloned().unwrap_or_default();
            let delivery = Delivery::of(kind, alert, &summary, None, now.wall);
            let about = delivery.about.filter(|_| are_first);
            notices.push(Delivery { about, ..delivery });
        }
        notices
    }
}
