//! Notifications for the webhook and for mails: one JSON object each. docs/ALERTING.md documents the format.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::time::WallTime;
use crate::domain::process::Dossier;
use crate::domain::tracker::{AgentId, Transition, Twin};
use crate::services::alerts::alert::{Alert, Id, Named, Subject, Texts, digest, hex};

/// The version of the format. New fields do not raise it.
const VERSION: u8 = 1;

/// A notification of a recovery action that was executed or is planned.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    /// The agent that the action is for.
    pub(crate) agent: AgentId,
    /// One sentence.
    pub(crate) text: String,
    /// Details for programs: the field `facts`.
    pub(crate) facts: Map<String, Value>,
}

/// A notification that is ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The same for each attempt, so that a receiver can recognise a repeat.
    pub(super) id: String,
    pub(super) kind: Kind,
    /// The agent or group that it is about: notifications with the same one go out in order.
    pub(super) lane: String,
    /// The alert of the notification, if it is about one.
    pub(super) about: Option<Id>,
    /// Whether it announces the end of that alert.
    pub(super) is_end: bool,
    pub(super) body: String,
}

/// The kind of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// An agent is in alarm.
    Firing,
    /// The alert has ended: its agent is healthy, replaced or forgotten.
    Resolved,
    /// The alert has ended because its agent is in maintenance; it may be in alarm as before.
    Paused,
    /// It got worse: another alert takes the place of the one that fired.
    Escalated,
    /// It fails repeatedly, and causes no further notification until it was healthy for a while.
    Flapping,
    /// Many agents failed together, or that is over.
    Incident,
    /// A recovery action.
    Recovery,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Kind::Firing => "firing",
            Kind::Resolved => "resolved",
            Kind::Paused => "paused",
            Kind::Escalated => "escalated",
            Kind::Flapping => "flapping",
            Kind::Incident => "incident",
            Kind::Recovery => "recovery",
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    version: u8,
    kind: Kind,
    agent: Option<AgentInfo<'a>>,
    state: Option<&'a str>,
    previous: Option<&'a str>,
    cause: Option<&'a str>,
    silence_ms: Option<u64>,
    at: WallTime,
    summary: &'a str,
    dossier: Option<&'a Dossier>,
    incident: Option<IncidentInfo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
struct AgentInfo<'a> {
    name: &'a str,
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    twin: Option<u8>,
    host: &'a str,
    transport: Option<&'a str>,
    labels: &'a Texts,
    unit: Option<&'a str>,
}

impl<'a> From<&'a Named> for AgentInfo<'a> {
    fn from(named: &'a Named) -> Self {
        AgentInfo {
            name: &named.name,
            pid: named.id().shown_pid(),
            twin: (named.twin != Twin::FIRST).then_some(named.twin.number()),
            host: &named.host,
            transport: (named.pid != 0).then(|| named.transport()),
            labels: &named.labels,
            unit: named.unit.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct IncidentInfo<'a> {
    host: Option<&'a str>,
    started_at: WallTime,
    /// Members that are in alarm now; `agents_in_all` counts all since the start.
    agents: Option<u64>,
    agents_in_all: Option<u64>,
    causes: Option<&'a str>,
    is_over: bool,
}

impl Delivery {
    /// The notification that an alert starts, flaps or ends, with `summary` as its text and the details of
    /// the transition that caused it, if one did.
    pub(super) fn of(
        kind: Kind,
        alert: &Alert,
        summary: &str,
        transition: Option<&Transition>,
        at: WallTime,
    ) -> Self {
        let id = Id::of(alert);
        let present = |text: &'_ str| !text.is_empty();
        let annotation = |name: &str| alert.annotations.get(name).map(String::as_str);
        let number = |name: &str| annotation(name)?.parse().ok();
        let (agent, incident) = match &alert.subject {
            Subject::Agent(named) => (Some(AgentInfo::from(&**named)), None),
            Subject::Incident { host, .. } => (None, Some(host.as_str())),
            Subject::Many => (None, None),
        };
        let incident = agent.is_none().then(|| IncidentInfo {
            host: incident,
            started_at: alert.starts_at,
            agents: number("agents"),
            agents_in_all: number("agents_in_all"),
            causes: annotation("causes"),
            is_over: alert.ends_at.is_some(),
        });
        let fields = transition.map(Transition::fields);
        let (state, previous, cause) = match &fields {
            Some(fields) => (Some(fields.to), fields.from, Some(fields.cause)),
            None if alert.ends_at.is_some() => (None, Some(alert.state.as_str()), None),
            None => {
                (Some(alert.state.as_str()), None, Some(alert.cause.as_str()).filter(|text| present(text)))
            }
        };
        let message = Message {
            version: VERSION,
            kind,
            agent,
            state,
            previous,
            cause,
            silence_ms: fields.as_ref().map(|fields| fields.silence_ms),
            at,
            summary,
            dossier: fields.and_then(|fields| fields.dossier),
            incident,
            facts: None,
        };
        let is_end = alert.ends_at.is_some();
        let name = format!("{} {}", kind.as_str(), if is_end { "over" } else { "on" });
        let lane = match alert.instance() {
            "" => id.delivery("lane"),
            instance => instance.to_owned(),
        };
        Delivery { id: id.delivery(&name), kind, lane, about: Some(id), is_end, body: message.to_json() }
    }

    /// The notification of a recovery action. `id` must be unique.
    pub(super) fn of_recovery(notice: &Notification, host: &str, id: String, at: WallTime) -> Self {
        let named = Named::bare(&notice.agent, host);
        let message = Message {
            version: VERSION,
            kind: Kind::Recovery,
            agent: Some(AgentInfo::from(&named)),
            state: None,
            previous: None,
            cause: None,
            silence_ms: None,
            at,
            summary: &notice.text,
            dossier: None,
            incident: None,
            facts: Some(&notice.facts),
        };
        let (kind, lane) = (Kind::Recovery, named.instance());
        Delivery { id, kind, lane, about: None, is_end: false, body: message.to_json() }
    }
}

impl Message<'_> {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text, numbers and maps with text for keys have a form in JSON")
    }
}

/// An id that is unique across notifications, servers and restarts.
pub(super) fn unique_id(host: &str, number: u64, at: WallTime) -> String {
    let text = format!("{host} {} {number} {at}", std::process::id());
    hex(&digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tracker::Problem;
    use crate::domain::tracker::tests::sample;

    #[test]
    fn a_body_has_these_fields_in_this_order() {
        let transition = sample::complete();
        let at = WallTime::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000));
        let named = Named::new(&transition, "db1");
        let alert = Alert {
            labels: named.alert_labels(Problem::Stalled),
            annotations: Texts::new(),
            starts_at: at,
            ends_at: None,
            subject: Subject::Agent(Box::new(named)),
            state: "stalled".to_owned(),
            cause: "silent".to_owned(),
            is_flapping: false,
            is_said: false,
        };
        let agent = concat!(
            r#"{"name":"a?\"b\\?"#,
            "\u{2028}",
            r#"é","pid":7,"twin":2,"host":"10.0.0.7","transport":"secure_udp","labels":{"team":"a\n\"b\\"#,
            "\u{7f}\u{2028}",
            r#"é","zone":"b"},"unit":"billing.service"}"#
        );
        let body = |transition| Delivery::of(Kind::Firing, &alert, "It fell.", transition, at).body;
        let expected = format!(
            r#"{{"version":1,"kind":"firing","agent":{agent},"state":"gone","previous":"up","cause":"goodbye","silence_ms":5001,"at":"2023-11-14T22:13:20.000Z","summary":"It fell.","dossier":"idle: it sleeps; main thread sleeping; 1 thread; 1.2 s of CPU since it started","incident":null}}"#
        );
        assert_eq!(body(Some(&transition)), expected);
        let expected = format!(
            r#"{{"version":1,"kind":"firing","agent":{agent},"state":"stalled","previous":null,"cause":"silent","silence_ms":null,"at":"2023-11-14T22:13:20.000Z","summary":"It fell.","dossier":null,"incident":null}}"#
        );
        assert_eq!(body(None), expected);
    }
}
