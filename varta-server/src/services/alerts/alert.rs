//! Alerts: their subjects, the labels that identify them, and their annotations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::time::WallTime;
use crate::base::visible::visible_text;
use crate::domain::agent_key::AgentKey;
use crate::domain::beat::Origin;
use crate::domain::tracker::Problem;
use crate::domain::tracker::{AgentId, Transition, Twin};

/// Names and values of labels or annotations.
pub(super) type Texts = BTreeMap<String, String>;

/// One alert, from its start until every receiver has its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alert {
    /// The identity of the alert. Constant while it lasts, whatever happens to the agent.
    pub(super) labels: Texts,
    /// The present description.
    pub(super) annotations: Texts,
    pub(super) starts_at: WallTime,
    /// `None` while it fires.
    pub(super) ends_at: Option<WallTime>,
    pub(super) subject: Subject,
    /// The newest verdict and cause, by name. The cause is empty where none is known.
    pub(super) state: String,
    pub(super) cause: String,
    /// Whether it fires until its agent was healthy for a whole flap window.
    pub(super) is_flapping: bool,
    /// Whether the webhook has taken the notification of its start.
    pub(super) is_said: bool,
}

impl Alert {
    /// What it says is wrong; `None` for the alert of all agents without one of their own.
    pub(super) fn problem(&self) -> Option<Problem> {
        Problem::of_alert(&self.labels, &self.state)
    }

    /// The label `instance`; empty for an alert of a release without it.
    pub(super) fn instance(&self) -> &str {
        self.labels.get("instance").map_or("", String::as_str)
    }
}

/// The subject of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Subject {
    /// One agent.
    Agent(Box<Named>),
    /// Many agents of one origin that failed together.
    Incident {
        /// The origin of the agents.
        place: Origin,
        /// The host name of the origin.
        host: String,
    },
    /// All agents without an alert of their own.
    Many,
}

/// An agent with everything that names it in labels and notifications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) place: Origin,
    /// 0 for an agent that was expected and has not been seen.
    pub(super) pid: u32,
    pub(super) twin: Twin,
    pub(super) host: String,
    pub(super) labels: Texts,
    pub(super) unit: Option<String>,
}

impl Named {
    pub(super) fn new(transition: &Transition, host: &str) -> Self {
        let labels =
            transition.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let unit = transition.unit.as_deref().map(shown);
        Named { labels, unit, ..Named::bare(&transition.agent, host) }
    }

    /// Without labels and unit, which only a transition has.
    pub(super) fn bare(agent: &AgentId, host: &str) -> Self {
        Named {
            name: shown(&agent.name),
            place: agent.origin,
            pid: agent.pid,
            twin: agent.twin,
            host: agent.origin.host(host),
            labels: Texts::new(),
            unit: None,
        }
    }

    pub(super) fn key(&self) -> AgentKey {
        AgentKey::of(&self.id())
    }

    /// The identity, with the name as metrics show it.
    pub(super) fn id(&self) -> AgentId {
        let name = Arc::from(self.name.as_str());
        AgentId { name, origin: self.place, pid: self.pid, twin: self.twin }
    }

    /// The value of the label `transport`; empty for an agent that has not been seen.
    pub(super) fn transport(&self) -> &'static str {
        if self.pid == 0 { "" } else { self.place.transport().as_str() }
    }

    /// The value of the label `instance`, which no two agents have at the same time: name, pid and origin, as
    /// in `billing[4242]@web-1`. One that has not been seen has no pid: `billing@web-1`.
    pub(super) fn instance(&self) -> String {
        self.id().instance(&self.host)
    }

    /// The labels of an alert about the agent: the server's, and then those that the agent set itself.
    pub(super) fn alert_labels(&self, problem: Problem) -> Texts {
        let mut labels = Texts::new();
        let mut put = |name: &str, value: String| labels.insert(name.to_owned(), value);
        put("alertname", problem.alert_name().to_owned());
        put("severity", problem.severity().to_owned());
        put("instance", self.instance());
        put("agent", self.name.clone());
        put("host", self.host.clone());
        if self.pid != 0 {
            put("transport", self.transport().to_owned());
        }
        if let Some(pid) = self.id().shown_pid() {
            put("pid", pid.to_string());
        }
        if self.twin != Twin::FIRST {
            put("twin", self.twin.number().to_string());
        }
        let is_ours = |name: &str| OURS.contains(&name);
        // Labels that clash with the server's come last, and get a prefix that makes them unique.
        let (ours, others): (Vec<_>, Vec<_>) = self.labels.iter().partition(|(name, _)| is_ours(name));
        for (name, value) in others.into_iter().chain(ours) {
            let mut name = name.clone();
            while is_ours(&name) || labels.contains_key(&name) {
                name.insert_str(0, "label_");
            }
            labels.insert(name, value.clone());
        }
        labels
    }
}

/// Labels reserved for the server, also on an alert without them: an agent must not influence what an
/// alerting rule matches.
const OURS: [&str; 10] =
    ["alertname", "severity", "instance", "agent", "host", "transport", "pid", "twin", "state", "incident"];

/// The text as metrics show it: each control character becomes `?`.
pub(super) fn shown(text: &str) -> String {
    visible_text(text)
}

/// A digest of the labels, which identifies an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(super) fn of(labels: &Texts) -> Self {
        let texts = labels.iter().flat_map(|(name, value)| [name, value]);
        // 0xff occurs in no UTF-8 text, so it separates names and values unambiguously.
        let bytes: Vec<u8> = texts.flat_map(|text| text.bytes().chain([0xff])).collect();
        Fingerprint(digest(&bytes))
    }

    pub(super) const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The first half of the SHA-256 digest.
pub(super) fn digest(bytes: &[u8]) -> [u8; 16] {
    let whole = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut half = [0; 16];
    half.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    half
}

/// One occurrence of an alert: the same labels that fire again later have another `Id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) fingerprint: Fingerprint,
    pub(super) starts_at: WallTime,
}

impl Id {
    pub(super) fn of(alert: &Alert) -> Self {
        Id { fingerprint: Fingerprint::of(&alert.labels), starts_at: alert.starts_at }
    }

    /// The id of one notification about the alert, the same across restarts of the server.
    pub(super) fn delivery(self, what: &str) -> String {
        let text = format!("{} {} {what}", hex(&self.fingerprint.0), self.starts_at);
        hex(&digest(text.as_bytes()))
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_agents_have_one_instance() {
        let address = "10.0.0.7".parse().expect("an address");
        let twin = Twin::from_number(2).expect("there may be two");
        let instance = |name: &str, origin, pid, twin| {
            Named::bare(&AgentId { name: Arc::from(name), origin, pid, twin }, "web-1").instance()
        };
        let instances = [
            instance("billing", Origin::Local, 7, Twin::FIRST),
            instance("billing", Origin::Local, 8, Twin::FIRST),
            instance("billing", Origin::Local, 0, Twin::FIRST),
            instance("billing", Origin::Udp(address), 7, Twin::FIRST),
            instance("billing", Origin::Udp(address), 7, twin),
            instance("billing", Origin::SecureUdp(address), 7, twin),
        ];
        let expected = [
            "billing[7]@web-1",
            "billing[8]@web-1",
            "billing@web-1",
            "billing[7]@udp:10.0.0.7",
            "billing[7]#2@udp:10.0.0.7",
            "billing[7]#2@secure_udp:10.0.0.7",
        ];
        assert_eq!(instances, expected);
    }

    #[test]
    fn whom_an_alert_is_about_is_written_in_the_form_that_files_have() {
        let address = "10.0.0.7".parse().expect("an address");
        let twin = Twin::from_number(2).expect("there may be two");
        let origins = [
            (Origin::Local, r#""local""#),
            (Origin::Udp(address), r#"{"udp":"10.0.0.7"}"#),
            (Origin::SecureUdp(address), r#"{"secure_udp":"10.0.0.7"}"#),
        ];
        for (origin, place) in origins {
            let agent = AgentId { name: Arc::from("worker"), origin, pid: 7, twin };
            let host = origin.host("db1");
            let subject = Subject::Agent(Box::new(Named::bare(&agent, "db1")));
            let expected = format!(
                r#"{{"agent":{{"name":"worker","place":{place},"pid":7,"twin":2,"host":"{host}","labels":{{}},"unit":null}}}}"#
            );
            assert_eq!(serde_json::to_string(&subject).expect("it has a form"), expected);
            assert_eq!(serde_json::from_str::<Subject>(&expected).expect("it is its own form"), subject);
            let subject = Subject::Incident { place: origin, host: host.clone() };
            let expected = format!(r#"{{"incident":{{"place":{place},"host":"{host}"}}}}"#);
            assert_eq!(serde_json::to_string(&subject).expect("it has a form"), expected);
        }
        let none = r#"{"agent":{"name":"worker","place":"local","pid":7,"twin":0,"host":"db1","labels":{},"unit":null}}"#;
        assert!(serde_json::from_str::<Subject>(none).is_err());
    }
}
