//! How alerts end, and who has not been told of it yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::alert::{Alert, Fingerprint, Id, Subject};
use super::super::moment::Moment;
use super::super::notice::{Delivery, Kind};
use super::{Book, MOST_ENDED};
use crate::sink::sentence;
use crate::tracker::{AgentId, Transition};

/// An alert that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) alert: Arc<Alert>,
    /// The Alertmanagers that do not know it yet, by their place on the command line.
    pub(super) alertmanagers: BTreeSet<usize>,
    pub(super) webhook: bool,
}

/// Why an alert ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending<'a> {
    /// Its agent is in alarm no more.
    Well(&'a Transition),
    /// Its agent was missing, and has come.
    Came(&'a AgentId),
    /// Another process has taken its agent's place.
    Succeeded(&'a AgentId),
    /// Its agent flapped, and was well for so long.
    Calm(Duration),
    /// Its agent is not to be told of at present.
    Paused,
    /// Nobody knows when: its agent is not among those in alarm.
    NotInAlarm,
    /// Its agent has gone, and another has its pid.
    Forgotten,
    /// All whom it told of are in alarm no more.
    Over,
}

impl Ending<'_> {
    fn summary(&self, alert: &Alert) -> String {
        let who = match &alert.subject {
            Subject::Agent(named) if named.pid == 0 => named.name.clone(),
            Subject::Agent(named) => format!("{}[{}]", named.name, named.pid),
            Subject::Incident { host, .. } => format!("what many agents of {host} fell in"),
            Subject::Many => "the alarm of many agents".to_owned(),
        };
        match self {
            Ending::Well(transition) => sentence(transition),
            Ending::Came(agent) => format!("{who} has come: it is {agent}"),
            Ending::Succeeded(agent) => format!("{who} has a successor: {agent}"),
            Ending::Calm(window) => {
                format!(
                    "{who} fell again and again, and has been well for {}",
                    humantime::format_duration(*window)
                )
            }
            Ending::Paused => format!("{who} is paused, and nothing is said of it until that is over"),
            Ending::NotInAlarm => format!("{who} is in alarm no more"),
            Ending::Forgotten => format!("{who} has gone, and another process has its pid"),
            Ending::Over => format!("{who} is over: all of them are well, or were forgotten"),
        }
    }

    const fn transition(&self) -> Option<&Transition> {
        match self {
            Ending::Well(transition) => Some(transition),
            Ending::Came(_)
            | Ending::Succeeded(_)
            | Ending::Calm(_)
            | Ending::Paused
            | Ending::NotInAlarm
            | Ending::Forgotten
            | Ending::Over => None,
        }
    }
}

impl Book {
    /// Ends an alert, and begins to tell of that.
    pub(super) fn end(&mut self, fingerprint: Fingerprint, ending: &Ending<'_>, now: Moment) {
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
        self.keep_ended(Ended { alert, alertmanagers, webhook: self.audience.webhook });
    }

    /// Keeps the end of an alert until everybody has been told of it.
    pub(super) fn keep_ended(&mut self, ended: Ended) {
        if ended.alertmanagers.is_empty() && !ended.webhook {
            return;
        }
        self.ended.insert(Fingerprint::of(&ended.alert.labels), ended);
        if self.ended.len() > MOST_ENDED {
            let oldest = self.ended.iter().min_by_key(|(_, ended)| ended.alert.ends_at);
            if let Some((fingerprint, oldest)) = oldest.map(|(fingerprint, ended)| (*fingerprint, ended)) {
                self.untold += oldest.alertmanagers.len() as u64;
                self.ended.remove(&fingerprint);
            }
        }
    }

    /// Takes note that an Alertmanager knows of the end of an alert, or will not be told any more.
    pub(in crate::alerts) fn handle_ended(&mut self, id: Id, alertmanager: usize) {
        self.tell_end(id, |ended| _ = ended.alertmanagers.remove(&alertmanager));
    }

    /// Takes note that the webhook knows of the end of an alert, or will not be told any more.
    pub(in crate::alerts) fn handle_said_ended(&mut self, id: Id) {
        self.tell_end(id, |ended| ended.webhook = false);
    }

    fn tell_end(&mut self, id: Id, told: impl FnOnce(&mut Ended)) {
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
