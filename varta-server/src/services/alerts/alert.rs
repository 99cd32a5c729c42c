//! What an alert is: whom it is about, the labels by which it is known everywhere, and what there is to say of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::time::WallTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::beat::Origin;
use crate::domain::tracker::{AgentId, Transition, Twin, Verdict};

/// Names and values of labels, or of annotations.
pub(super) type Texts = BTreeMap<String, String>;

/// One alert, from its beginning until everybody has been told of its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alert {
    /// What makes it this alert and no other. Never changes while it lasts, whatever becomes of the agent.
    pub(super) labels: Texts,
    /// What there is to say of it at present.
    pub(super) annotations: Texts,
    pub(super) starts_at: WallTime,
    /// `None` while it lasts.
    pub(super) ends_at: Option<WallTime>,
    pub(super) subject: Subject,
    /// What was concluded last: a verdict's and a cause's name. The cause is empty where none is known.
    pub(super) state: String,
    pub(super) cause: String,
    /// Whether it is held until its subject was well for a whole window.
    pub(super) is_flapping: bool,
    /// Whether the webhook has been told that it began.
    pub(super) is_said: bool,
}

/// Whom an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Subject {
    /// One agent.
    Agent(Box<Named>),
    /// Many of one place that fell together.
    Incident {
        /// Where.
        place: Origin,
        /// The name of the place.
        host: String,
    },
    /// Those for whom there is no alert of their own.
    Many,
}

/// An agent, with all by which it is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) place: Origin,
    /// 0 for one that was expected and has not come.
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

    /// Without what only a change of verdict tells.
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
        let name = Arc::from(self.name.as_str());
        AgentKey::of(&AgentId { name, origin: self.place, pid: self.pid, twin: self.twin })
    }

    /// The value of the label `transport`; none for an agent that has not come.
    pub(super) fn transport(&self) -> &'static str {
        if self.pid == 0 { "" } else { self.place.transport().as_str() }
    }

    /// The labels of an alert about it, with those that it gave itself behind ours.
    pub(super) fn alert_labels(&self, severity: &str) -> Texts {
        let mut labels = Texts::new();
        let mut put = |name: &str, value: String| labels.insert(name.to_owned(), value);
        put("alertname", "VartaAgentUnhealthy".to_owned());
        put("severity", severity.to_owned());
        put("agent", self.name.clone());
        put("host", self.host.clone());
        if self.pid != 0 {
            put("transport", self.transport().to_owned());
            put("pid", self.pid.to_string());
        }
        if self.twin != Twin::FIRST {
            put("twin", self.twin.number().to_string());
        }
        let is_ours = |name: &str| OURS.contains(&name);
        // Those that clash come last, and find a name that nobody has.
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

/// The labels that are ours, also where an alert does not have them: an agent does not decide what a rule that asks for
/// them finds.
const OURS: [&str; 9] =
    ["alertname", "severity", "agent", "host", "transport", "pid", "twin", "state", "incident"];

/// How bad it is that an agent is in this state.
pub(super) fn severity(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Down => "critical",
        Verdict::Up(_) | Verdict::Stalled | Verdict::Gone | Verdict::Unknown | Verdict::Expected => "warning",
    }
}

/// As metrics show it: control characters, which no honest name has, become `?`.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

/// A number that is the same for the same labels, and for no others that anybody can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(super) fn of(labels: &Texts) -> Self {
        let texts = labels.iter().flat_map(|(name, value)| [name, value]);
        // The byte that ends a text stands in none.
        let bytes: Vec<u8> = texts.flat_map(|text| text.bytes().chain([0xff])).collect();
        Fingerprint(digest(&bytes))
    }
}

/// The first half of the SHA-256.
pub(super) fn digest(bytes: &[u8]) -> [u8; 16] {
    let whole = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut half = [0; 16];
    half.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    half
}

/// Which alert it is, and which time: one that ended and began anew is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) fingerprint: Fingerprint,
    pub(super) starts_at: WallTime,
}

impl Id {
    pub(super) fn of(alert: &Alert) -> Self {
        Id { fingerprint: Fingerprint::of(&alert.labels), starts_at: alert.starts_at }
    }

    /// Names something that is said once of it, also by the server after this one.
    pub(super) fn delivery(self, what: &str) -> String {
        let text = format!("{} {} {what}", hex(&self.fingerprint.0), self.starts_at);
        hex(&digest(text.as_bytes()))
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
