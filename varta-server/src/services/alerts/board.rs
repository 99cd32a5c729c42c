//! What fires, for whoever asks: the alerts as the receivers get them, and what became of each at each receiver. A look
//! at it holds up no sending task.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::base::clock::wall_now;
use crate::base::time::WallTime;
use crate::domain::tracker::Problem;
use crate::services::alerts::alert::{Alert, Id, Subject, hex};
use crate::services::alerts::annotations::ACKNOWLEDGED;
use crate::services::alerts::http_client::DeliveryResult;
use crate::services::alerts::lifecycle::state::AlertSnapshot;

/// The most alerts of which it is kept what became of them: more than can fire at once.
const MAX_ALERTS: usize = 4_096;
/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 300;

/// The alerts that fire. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct AlertBoard {
    pub(super) snapshot: watch::Receiver<Arc<AlertSnapshot>>,
    pub(super) sent: SentAlerts,
}

/// A receiver, as readers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReceiverName {
    /// `alertmanager`, `webhook` or `mail`.
    pub(super) kind: &'static str,
    /// Its address without secrets.
    pub(super) name: String,
}

/// What became of alerts. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct SentAlerts(Arc<Mutex<Sent>>);

#[derive(Debug, Default)]
struct Sent {
    receivers: Vec<ReceiverName>,
    of: HashMap<Id, Vec<Sending>>,
    /// How often something has changed.
    changes: u64,
}

/// What became of one alert at one receiver.
#[derive(Clone, Debug)]
struct Sending {
    to: ReceiverName,
    outcome: SendOutcome,
    at: WallTime,
    attempts: u32,
    why: Option<String>,
}

/// The outcome of sending an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendOutcome {
    Taken,
    Refused,
    /// It is tried again.
    Failed,
    GivenUp,
}

impl SendOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            SendOutcome::Taken => "taken",
            SendOutcome::Refused => "refused",
            SendOutcome::Failed => "failed",
            SendOutcome::GivenUp => "given_up",
        }
    }
}

/// An alert that fires.
#[derive(Clone, Debug)]
pub(crate) struct FiringAlert {
    alert: Arc<Alert>,
    id: Id,
}

impl AlertBoard {
    /// All that fire, the newest first, and how often something has changed.
    pub(crate) fn firing(&self) -> (Vec<FiringAlert>, u64) {
        let changes = self.sent.lock().changes;
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let of = |alert: &Arc<Alert>| FiringAlert { id: Id::of(alert), alert: Arc::clone(alert) };
        let mut firing: Vec<_> = snapshot.firing.iter().map(of).collect();
        firing.sort_unstable_by_key(|alert| std::cmp::Reverse(alert.key()));
        (firing, changes)
    }

    /// The receivers, each as a JSON object.
    pub(crate) fn receivers(&self) -> Vec<Value> {
        let sent = self.sent.lock();
        sent.receivers
            .iter()
            .map(|ReceiverName { kind, name }| json!({ "kind": kind, "name": name }))
            .collect()
    }

    /// An alert as a JSON object.
    pub(crate) fn to_json(&self, firing: &FiringAlert) -> Value {
        let FiringAlert { alert, id } = firing;
        json!({
            "fingerprint": hex(id.fingerprint.bytes()),
            "name": firing.name(),
            "severity": alert.labels.get("severity"),
            "problem": firing.problem().map(Problem::as_str),
            "agent": firing.agent(),
            "labels": alert.labels,
            "annotations": alert.annotations,
            "since": alert.starts_at.to_string(),
            "flapping": alert.is_flapping,
            "acknowledged": alert.annotations.get(ACKNOWLEDGED),
            "sent": self.sent_of(firing),
        })
    }

    /// What became of it at each receiver.
    fn sent_of(&self, firing: &FiringAlert) -> Vec<Value> {
        let sent = self.sent.lock();
        let of = sent.of.get(&firing.id).map_or(&[][..], Vec::as_slice);
        let one = |receiver: &ReceiverName| {
            let known = of.iter().find(|sending| sending.to == *receiver);
            let (outcome, at, attempts, why) = match known {
                Some(known) => (known.outcome.as_str(), Some(known.at), known.attempts, known.why.as_deref()),
                None => (firing.unsent(receiver), None, 0, None),
            };
            json!({
                "kind": receiver.kind, "name": receiver.name, "outcome": outcome,
                "at": at.map(|at| at.to_string()), "attempts": attempts, "why": why,
            })
        };
        sent.receivers.iter().map(one).collect()
    }
}

impl FiringAlert {
    /// By what the newest comes first.
    pub(crate) fn key(&self) -> (u64, [u8; 16]) {
        (self.id.starts_at.as_millis(), *self.id.fingerprint.bytes())
    }

    /// The label `alertname`.
    pub(crate) fn name(&self) -> &str {
        self.alert.labels.get("alertname").map_or("", String::as_str)
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        self.alert.problem()
    }

    /// The id of its agent; `None` for an alert about many.
    pub(crate) fn agent(&self) -> Option<String> {
        match &self.alert.subject {
            Subject::Agent(named) => Some(named.instance()),
            Subject::Incident { .. } | Subject::Many => None,
        }
    }

    /// The name of its agent, likewise.
    pub(crate) fn agent_name(&self) -> Option<&str> {
        match &self.alert.subject {
            Subject::Agent(named) => Some(&named.name),
            Subject::Incident { .. } | Subject::Many => None,
        }
    }

    pub(crate) fn is_acknowledged(&self) -> bool {
        self.alert.annotations.contains_key(ACKNOWLEDGED)
    }

    /// The start and host of the incident that it is about, and what its text says; `None` for any other.
    pub(crate) fn incident(&self) -> Option<FiringIncident<'_>> {
        let Subject::Incident { host, .. } = &self.alert.subject else { return None };
        let number = |name: &str| self.alert.annotations.get(name).and_then(|number| number.parse().ok());
        Some(FiringIncident {
            host,
            state: &self.alert.state,
            began: self.alert.starts_at,
            agents: number("agents_in_all"),
            in_alarm: number("agents"),
        })
    }

    /// What is told of a receiver to which this server has not sent it.
    fn unsent(&self, receiver: &ReceiverName) -> &'static str {
        match receiver.kind {
            ALERTMANAGER => "waiting",
            _ if !self.alert.is_said => "waiting",
            _ if self.is_acknowledged() => "acknowledged",
            // By the server before this one.
            _ => SendOutcome::Taken.as_str(),
        }
    }
}

/// An incident that an alert is about, from before this server's start or since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FiringIncident<'a> {
    pub(crate) host: &'a str,
    pub(crate) state: &'a str,
    pub(crate) began: WallTime,
    pub(crate) agents: Option<u64>,
    pub(crate) in_alarm: Option<u64>,
}

/// The kinds of receivers.
pub(super) const ALERTMANAGER: &str = "alertmanager";
pub(super) const WEBHOOK: &str = "webhook";
pub(super) const MAIL: &str = "mail";

impl SentAlerts {
    /// Replaces the receivers.
    pub(super) fn set_receivers(&self, receivers: Vec<ReceiverName>) {
        let mut sent = self.lock();
        sent.changes += 1;
        sent.receivers = receivers;
    }

    /// Notes that other alerts fire, and drops what is known of those that do not.
    pub(super) fn keep_to(&self, snapshot: &AlertSnapshot) {
        let mut sent = self.lock();
        sent.changes += 1;
        if sent.of.len() > snapshot.firing.len() + MAX_ALERTS / 4 {
            let firing: HashSet<_> = snapshot.firing.iter().map(|alert| Id::of(alert)).collect();
            sent.of.retain(|id, _| firing.contains(id));
        }
    }

    /// Notes the result of an attempt to send the start of an alert.
    pub(super) fn note(&self, id: Id, to: &ReceiverName, result: &DeliveryResult) {
        match result {
            DeliveryResult::Taken => self.put(id, to, SendOutcome::Taken, None),
            DeliveryResult::Refused(why) => self.put(id, to, SendOutcome::Refused, Some(why)),
            DeliveryResult::Failed(why, _) => self.put(id, to, SendOutcome::Failed, Some(why)),
        }
    }

    /// Notes that no further attempt is made.
    pub(super) fn give_up(&self, id: Id, to: &ReceiverName, why: &str) {
        self.put(id, to, SendOutcome::GivenUp, Some(why));
    }

    fn put(&self, id: Id, to: &ReceiverName, outcome: SendOutcome, why: Option<&str>) {
        let why = why.map(|why| why.chars().take(MAX_REASON).collect());
        let at = WallTime::from(wall_now());
        let mut sent = self.lock();
        if sent.of.len() >= MAX_ALERTS && !sent.of.contains_key(&id) {
            return;
        }
        sent.changes += 1;
        let of = sent.of.entry(id).or_default();
        match of.iter_mut().find(|known| known.to == *to) {
            // An Alertmanager gets what fires again and again.
            Some(known) => {
                let attempts = known.attempts.saturating_add(1);
                *known = Sending { to: to.clone(), outcome, at, attempts, why };
            }
            None => of.push(Sending { to: to.clone(), outcome, at, attempts: 1, why }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::alerts::alert::Texts;

    fn alert(name: &str, starts_at: u64) -> Arc<Alert> {
        let labels = Texts::from([("alertname".to_owned(), name.to_owned())]);
        Arc::new(Alert {
            labels,
            annotations: Texts::new(),
            starts_at: WallTime::default().after(std::time::Duration::from_millis(starts_at)),
            ends_at: None,
            subject: Subject::Many,
            state: String::new(),
            cause: String::new(),
            is_flapping: false,
            is_said: false,
        })
    }

    fn outcomes(board: &AlertBoard) -> Vec<(String, Value, Value)> {
        let (firing, _) = board.firing();
        let of = |alert: &FiringAlert| {
            let shown = board.to_json(alert);
            let [outcome, attempts] = ["outcome", "attempts"].map(|name| shown["sent"][0][name].clone());
            (alert.name().to_owned(), outcome, attempts)
        };
        firing.iter().map(of).collect()
    }

    #[test]
    fn what_fires_is_told_newest_first_with_what_became_of_it_at_each_receiver() {
        let (publish, snapshot) = watch::channel(Arc::new(AlertSnapshot::default()));
        let board = AlertBoard { snapshot, sent: SentAlerts::default() };
        let to = ReceiverName { kind: ALERTMANAGER, name: "http://a".to_owned() };
        board.sent.set_receivers(vec![to.clone()]);
        let (_, before) = board.firing();
        let alerts = vec![alert("old", 1), alert("new", 2)];
        publish.send_replace(Arc::new(AlertSnapshot { firing: alerts.clone(), ended: Vec::new() }));
        board.sent.keep_to(&board.snapshot.borrow());
        let of = |name: &str, outcome: &str, attempts| (name.to_owned(), json!(outcome), json!(attempts));
        assert_eq!(outcomes(&board), [of("new", "waiting", 0), of("old", "waiting", 0)]);
        let id = Id::of(&alerts[0]);
        board.sent.note(id, &to, &DeliveryResult::Failed("it is full".to_owned(), None));
        assert_eq!(outcomes(&board)[1], of("old", "failed", 1));
        board.sent.note(id, &to, &DeliveryResult::Taken);
        assert_eq!(outcomes(&board)[1], of("old", "taken", 2));
        assert!(board.firing().1 > before);
    }

    #[test]
    fn what_became_of_alerts_that_do_not_fire_any_more_is_forgotten() {
        let sent = SentAlerts::default();
        let to = ReceiverName { kind: WEBHOOK, name: "http://a".to_owned() };
        for number in 0..=MAX_ALERTS as u64 {
            sent.note(Id::of(&alert("a", number)), &to, &DeliveryResult::Taken);
        }
        assert_eq!(sent.lock().of.len(), MAX_ALERTS);
        sent.keep_to(&AlertSnapshot { firing: vec![alert("a", 7)], ended: Vec::new() });
        assert_eq!(sent.lock().of.keys().collect::<Vec<_>>(), [&Id::of(&alert("a", 7))]);
    }
}
