//! The part of the alert state that survives a restart, and how it is restored.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::WallClock;
use crate::base::time::WallTime;
use crate::services::alerts::alert::{Alert, Fingerprint, Subject};
use crate::services::alerts::annotations::{ESCALATED, ESCALATED_FROM, PAUSED, RESOLVED};
use crate::services::alerts::lifecycle::agent_state::AgentAlertState;
use crate::services::alerts::lifecycle::group::Group;
use crate::services::alerts::lifecycle::state::{AlertState, MAX_GROUPS, MAX_RESOLVED, MAX_SINGLES};
use crate::services::alerts::notification::{Delivery, Kind};

/// An alert with the state of its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersistedAlert {
    alert: Alert,
    /// Whether its agent is in alarm: one that flaps may be healthy.
    is_ill: bool,
    /// The failures of its agent that still count.
    falls: Vec<WallTime>,
    /// Whether the receivers of notices have yet to get its end.
    is_owed: bool,
}

/// The limit of failures in a file, above any that a server writes.
const MAX_FAILURES: usize = 1_000;

impl AlertState {
    /// All alerts, for the file.
    pub(crate) fn kept(&self, now: WallClock) -> Vec<PersistedAlert> {
        let firing = self.firing.values().map(|alert| {
            let record = match &alert.subject {
                Subject::Agent(named) => self.records.get(&named.key()),
                Subject::Incident { .. } | Subject::Many => None,
            };
            let falls =
                record.into_iter().flat_map(AgentAlertState::falls).map(|fall| now.at(fall)).collect();
            let is_ill = record.is_none_or(|record| record.is_unhealthy);
            PersistedAlert { alert: Alert::clone(alert), is_ill, falls, is_owed: false }
        });
        let ended = self.ended.values().map(|ended| PersistedAlert {
            alert: Alert::clone(&ended.alert),
            is_ill: false,
            falls: Vec::new(),
            is_owed: ended.notices,
        });
        firing.chain(ended).collect()
    }

    /// Restores the alerts of the server's previous run. Receivers that have them get nothing again; the next
    /// sweep decides which of them still fire. Returns how many are invalid.
    pub(crate) fn restore(&mut self, kept: Vec<PersistedAlert>, now: WallClock) -> usize {
        let mut senseless = 0;
        for kept in kept {
            let fingerprint = Fingerprint::of(&kept.alert.labels);
            let is_known = self.firing.contains_key(&fingerprint) || self.ended.contains_key(&fingerprint);
            let taken = !is_known && self.make_sense(&kept, now) && self.take(fingerprint, kept, now);
            senseless += usize::from(!taken);
        }
        self.is_changed = true;
        senseless
    }

    fn make_sense(&self, kept: &PersistedAlert, now: WallClock) -> bool {
        let Alert { labels, starts_at, ends_at, .. } = &kept.alert;
        labels.contains_key("alertname")
            // A wall clock that was set back by up to a day discards no alert.
            && *starts_at <= now.wall.after(Duration::from_secs(86_400))
            && ends_at.is_none_or(|ends_at| ends_at >= *starts_at)
            && kept.falls.len() <= MAX_FAILURES
            && match kept.alert.subject {
                Subject::Agent(_) => ends_at.is_some() || self.singles < MAX_SINGLES,
                Subject::Incident { .. } | Subject::Many => ends_at.is_some() || self.groups.len() <= MAX_GROUPS,
            }
            && self.ended.len() < MAX_RESOLVED
    }

    fn take(&mut self, fingerprint: Fingerprint, kept: PersistedAlert, now: WallClock) -> bool {
        let PersistedAlert { alert, is_ill, falls, is_owed } = kept;
        let summary = |name: &str| alert.annotations.get(name).cloned().unwrap_or_default();
        if alert.ends_at.is_some() {
            let notices = is_owed && self.audience.notices;
            if notices {
                let (kind, why) = match alert.subject {
                    Subject::Agent(_) if alert.annotations.contains_key(ESCALATED) => {
                        (Kind::Escalated, ESCALATED)
                    }
                    Subject::Agent(_) if alert.annotations.contains_key(PAUSED) => (Kind::Paused, PAUSED),
                    Subject::Agent(_) => (Kind::Resolved, RESOLVED),
                    Subject::Incident { .. } | Subject::Many if alert.annotations.contains_key(PAUSED) => {
                        (Kind::Incident, PAUSED)
                    }
                    Subject::Incident { .. } | Subject::Many => (Kind::Incident, RESOLVED),
                };
                let delivery = Delivery::of(kind, &alert, &summary(why), None, now.wall);
                self.deliveries.push_back(delivery);
            }
            self.keep_ended(Arc::new(alert), notices, now);
            return true;
        }
        let kind = match &alert.subject {
            Subject::Agent(named) => {
                let key = named.key();
                if self.records.contains_key(&key) {
                    return false;
                }
                let falls: VecDeque<_> =
                    falls.iter().map(|fall| now.mono.before(now.wall.since(*fall))).collect();
                let mut record = AgentAlertState::restored(is_ill, alert.is_flapping, falls);
                record.told_by = Some(fingerprint);
                record.well_since = now.mono;
                self.records.insert(key.clone(), record);
                self.singles += 1;
                if !is_ill {
                    self.wait(&key);
                }
                if alert.annotations.contains_key(ESCALATED_FROM) {
                    Kind::Escalated
                } else if alert.is_flapping {
                    Kind::Flapping
                } else {
                    Kind::Firing
                }
            }
            Subject::Incident { .. } | Subject::Many => {
                let in_all = alert.annotations.get("agents_in_all").and_then(|number| number.parse().ok());
                self.groups.insert(fingerprint, Group::restored(in_all.unwrap_or(0)));
                Kind::Incident
            }
        };
        if self.audience.notices && !alert.is_said {
            self.deliveries.push_back(Delivery::of(kind, &alert, &summary("summary"), None, now.wall));
        }
        self.firing.insert(fingerprint, Arc::new(alert));
        true
    }
}
