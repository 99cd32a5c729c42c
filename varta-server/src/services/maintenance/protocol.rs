//! The protocol of the control socket: one line of JSON each way, then the connection closes.

use std::time::Duration;

use serde_json::json;
use serde_json::{Map, Value};

use crate::base::Glob;
use crate::base::limits::MAX_DURATION;
use crate::base::time::millis;
use crate::domain::AgentPattern;
use crate::domain::tracker::{AgentId, NameMatches};
use crate::services::maintenance::json_object::JsonObject;
use crate::services::maintenance::options::{PlannedPauses, Reason};
use crate::services::maintenance::pause::{MIN_PAUSE, Pause, parse_pattern, parse_reason};
use crate::services::maintenance::schedule::Schedule;

/// The version of the protocol.
pub(crate) const VERSION: u64 = 1;
/// The longest request in bytes, newline included.
pub(crate) const MAX_REQUEST_LEN: usize = 8 << 10;
/// The longest response in bytes, newline included.
pub(crate) const MAX_RESPONSE_LEN: usize = 4 << 20;

// All pauses fit a response, each with every field at its longest: a character of a pattern takes up to four
// bytes, and an escaped one of a reason twice its own.
const _: () = assert!(
    (Schedule::MAX_PAUSES + PlannedPauses::MAX_PLANNED) * (4 * Glob::MAX_LEN + 2 * Reason::MAX_LEN + 512)
        + 1_024
        <= MAX_RESPONSE_LEN
);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Pauses agents from now on.
    Pause {
        /// The pattern of the names.
        pattern: Glob,
        /// The length of the pause.
        length: Duration,
        /// The reason.
        reason: Option<Reason>,
    },
    /// Ends the pause of exactly this pattern.
    Resume {
        /// The pattern.
        pattern: Glob,
    },
    /// Lists all pauses.
    Pauses,
    /// Forgets agents that do not live.
    Forget {
        /// The agents.
        who: AgentPattern,
        /// The reason.
        reason: Option<Reason>,
    },
    /// Acknowledges the alarms of agents.
    Acknowledge {
        /// The agents.
        who: AgentPattern,
        /// The reason.
        reason: Option<Reason>,
    },
    /// Reads keys and configuration again.
    Reload,
    /// Ends acknowledgements.
    TakeBack {
        /// The agents.
        who: AgentPattern,
    },
}

impl Request {
    /// Parses a line.
    ///
    /// # Errors
    ///
    /// The first fault, with its key.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let mut fields = JsonObject::parse(line)?;
        match fields.need_number("v")? {
            VERSION => {}
            other => return Err(format!("v: {other} is not spoken here; this server speaks {VERSION}")),
        }
        let request = match fields.need_text("do")?.as_str() {
            "pause" => Request::Pause {
                pattern: parse_pattern(&fields.need_text("pattern")?)?,
                length: check_length(Duration::from_millis(fields.need_number("for_ms")?))
                    .map_err(|fault| format!("for_ms: {fault}"))?,
                reason: fields.text("reason")?.map(|text| parse_reason(&text)).transpose()?,
            },
            "resume" => Request::Resume { pattern: parse_pattern(&fields.need_text("pattern")?)? },
            "pauses" => Request::Pauses,
            "forget" => Request::Forget {
                who: parse_who(&fields.need_text("who")?)?,
                reason: fields.text("reason")?.map(|text| parse_reason(&text)).transpose()?,
            },
            "ack" => Request::Acknowledge {
                who: parse_who(&fields.need_text("who")?)?,
                reason: fields.text("reason")?.map(|text| parse_reason(&text)).transpose()?,
            },
            "reload" => Request::Reload,
            "unack" => Request::TakeBack { who: parse_who(&fields.need_text("who")?)? },
            other => {
                let other = other.escape_debug();
                return Err(format!(
                    "do: `{other}` is none of pause, resume, pauses, forget, ack, unack, reload"
                ));
            }
        };
        fields.end()?;
        Ok(request)
    }

    /// The request as a line.
    pub(crate) fn to_line(&self) -> String {
        let fields = match self {
            Request::Pause { pattern, length, reason } => json!({
                "v": VERSION,
                "do": "pause",
                "pattern": pattern.as_str(),
                "for_ms": millis(*length),
                "reason": reason.as_ref().map(Reason::as_str),
            }),
            Request::Resume { pattern } => {
                json!({ "v": VERSION, "do": "resume", "pattern": pattern.as_str() })
            }
            Request::Pauses => json!({ "v": VERSION, "do": "pauses" }),
            Request::Forget { who, reason } => json!({
                "v": VERSION,
                "do": "forget",
                "who": who.as_str(),
                "reason": reason.as_ref().map(Reason::as_str),
            }),
            Request::Acknowledge { who, reason } => json!({
                "v": VERSION,
                "do": "ack",
                "who": who.as_str(),
                "reason": reason.as_ref().map(Reason::as_str),
            }),
            Request::Reload => json!({ "v": VERSION, "do": "reload" }),
            Request::TakeBack { who } => json!({ "v": VERSION, "do": "unack", "who": who.as_str() }),
        };
        format!("{fields}\n")
    }
}

/// Checks the length of a pause.
///
/// # Errors
///
/// The length is out of range; the text has the bounds.
pub(crate) fn check_length(length: Duration) -> Result<Duration, String> {
    if (MIN_PAUSE..=MAX_DURATION).contains(&length) {
        return Ok(length);
    }
    Err(format!("{length:?} is not between 1 second and 366 days"))
}

/// Parses what names agents, or one by its pid.
///
/// # Errors
///
/// The fault, with its key.
pub(super) fn parse_who(text: &str) -> Result<AgentPattern, String> {
    AgentPattern::parse(text).map_err(|_| {
        format!("who: has 1 to {} characters, and none of them is a control character", Glob::MAX_LEN)
    })
}

/// The outcome of a request, in the response and in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseStatus {
    /// The request was carried out.
    Ok,
    /// The request was valid and not carried out.
    Refused,
    /// The request was invalid.
    Malformed,
}

impl ResponseStatus {
    pub(crate) const ALL: [ResponseStatus; 3] =
        [ResponseStatus::Ok, ResponseStatus::Refused, ResponseStatus::Malformed];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            ResponseStatus::Ok => "ok",
            ResponseStatus::Refused => "refused",
            ResponseStatus::Malformed => "malformed",
        }
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Response {
    pub(crate) outcome: ResponseStatus,
    /// The fault; or a warning, if the request was carried out.
    pub(crate) word: Option<String>,
    /// The pauses of the request.
    pub(crate) pauses: Vec<Value>,
    /// Whether requested pauses survive a restart (`--state-dir`).
    pub(crate) kept: bool,
    /// The agents that a new pause matches at present; `None` for other requests, and where the server does
    /// not know.
    pub(crate) matches: Option<Matches>,
    /// The agents that were forgotten, by name and pid.
    pub(crate) forgotten: Option<Matches>,
    /// The agents that were selected, and live.
    pub(crate) living: Option<Matches>,
    /// The agents whose alarms were acknowledged, or are so no more.
    pub(crate) acknowledged: Option<Matches>,
    /// What counts from now on after a reload, a line for each file that was read.
    pub(crate) lines: Vec<String>,
}

/// The agents that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matches {
    pub(crate) agents: u64,
    /// The first few of their names.
    pub(crate) names: Vec<String>,
}

impl Matches {
    /// So many agents, the first of which are given: by name and pid, if they have come.
    pub(super) fn of_agents(agents: u64, first: &[AgentId]) -> Self {
        let shown = |agent: &AgentId| match agent.pid {
            0 => agent.name.to_string(),
            pid => format!("{}[{pid}]", agent.name),
        };
        Matches { agents, names: first.iter().take(NameMatches::MAX_NAMES).map(shown).collect() }
    }

    /// The first few of the names, and that there may be more, if there may. Agents may share a name.
    pub(super) fn shown(&self) -> String {
        let Matches { agents, names } = self;
        let mut text =
            names.iter().map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
        if names.len() >= NameMatches::MAX_NAMES && *agents > names.len() as u64 {
            text.push_str(", ...");
        }
        text
    }

    fn to_json(&self) -> Value {
        json!({ "agents": self.agents, "names": self.names })
    }

    fn of(value: Value) -> Result<Self, String> {
        let mut fields = JsonObject::of(value)?;
        let agents = fields.need_number("agents")?;
        let texts = fields.list("names")?.into_iter().map(|name| match name {
            Value::String(name) => Ok(name),
            _ => Err("names: one is not a string".to_owned()),
        });
        Ok(Matches { agents, names: texts.collect::<Result<_, _>>()? })
    }
}

impl Response {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Response {
            outcome: ResponseStatus::Refused,
            word: Some(why.into()),
            pauses: Vec::new(),
            kept: false,
            matches: None,
            forgotten: None,
            living: None,
            acknowledged: None,
            lines: Vec::new(),
        }
    }

    pub(crate) fn malformed(why: impl Into<String>) -> Self {
        Response { outcome: ResponseStatus::Malformed, ..Response::refused(why) }
    }

    /// The response as a line.
    pub(crate) fn to_line(&self) -> String {
        let mut fields = Map::new();
        fields.insert("v".to_owned(), json!(VERSION));
        fields.insert("outcome".to_owned(), json!(self.outcome.as_str()));
        match self.outcome {
            ResponseStatus::Ok => {
                fields.insert("warning".to_owned(), json!(self.word));
                fields.insert("pauses".to_owned(), json!(self.pauses));
                fields.insert("kept".to_owned(), json!(self.kept));
                if !self.lines.is_empty() {
                    fields.insert("lines".to_owned(), json!(self.lines));
                }
                let agents = [
                    ("matches", &self.matches),
                    ("forgotten", &self.forgotten),
                    ("living", &self.living),
                    ("acknowledged", &self.acknowledged),
                ];
                for (key, agents) in agents {
                    if let Some(agents) = agents {
                        fields.insert(key.to_owned(), agents.to_json());
                    }
                }
            }
            ResponseStatus::Refused | ResponseStatus::Malformed => {
                fields.insert("error".to_owned(), json!(self.word));
            }
        }
        format!("{}\n", Value::Object(fields))
    }

    /// Parses a line. Unknown keys, which a newer version may add, are ignored.
    ///
    /// # Errors
    ///
    /// The line is not a response of this protocol version.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let mut fields = JsonObject::parse(line)?;
        let version = fields.need_number("v")?;
        if version != VERSION {
            return Err(format!("v: {version} is not spoken here; this program speaks {VERSION}"));
        }
        let text = fields.need_text("outcome")?;
        let outcome = ResponseStatus::ALL.into_iter().find(|outcome| outcome.as_str() == text);
        let outcome = outcome.ok_or_else(|| format!("outcome: `{}` is none", text.escape_debug()))?;
        let word = fields.text(if outcome == ResponseStatus::Ok { "warning" } else { "error" })?;
        let mut agents = |key: &str| {
            let agents = fields.value(key).map(Matches::of).transpose();
            agents.map_err(|fault| format!("{key}: {fault}"))
        };
        let [matches, forgotten, living, acknowledged] =
            [agents("matches")?, agents("forgotten")?, agents("living")?, agents("acknowledged")?];
        let (pauses, kept) = (fields.list("pauses")?, fields.flag("kept")?);
        let lines = fields.list("lines")?.into_iter().map(|line| match line {
            Value::String(line) => Ok(line),
            _ => Err("lines: one is not a string".to_owned()),
        });
        let lines = lines.collect::<Result<_, _>>()?;
        Ok(Response { outcome, word, pauses, kept, matches, forgotten, living, acknowledged, lines })
    }

    /// Parses the pauses.
    ///
    /// # Errors
    ///
    /// One of them is invalid.
    pub(crate) fn read_pauses(&self) -> Result<Vec<Pause>, String> {
        self.pauses.iter().cloned().map(Pause::from_json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::maintenance::testing::{asked, glob};

    #[test]
    fn what_is_said_is_understood() {
        let reason = Some(Reason::parse("a \"reason\"").unwrap());
        let pattern = glob("batch-*");
        for request in [
            Request::Pause { pattern: pattern.clone(), length: MIN_PAUSE, reason },
            Request::Pause { pattern: pattern.clone(), length: MAX_DURATION, reason: None },
            Request::Resume { pattern },
            Request::Pauses,
            Request::Forget { who: AgentPattern::parse("4242").unwrap(), reason: None },
            Request::Acknowledge {
                who: AgentPattern::parse("a").unwrap(),
                reason: Some(Reason::parse("b").unwrap()),
            },
            Request::TakeBack { who: AgentPattern::parse("a*").unwrap() },
            Request::Reload,
        ] {
            let line = request.to_line();
            assert!(line.ends_with('\n') && line.len() <= MAX_REQUEST_LEN);
            assert_eq!(Request::parse(line.as_bytes()), Ok(request));
        }
        let answer = Response {
            outcome: ResponseStatus::Ok,
            word: None,
            pauses: vec![asked("a", 9).to_json()],
            kept: true,
            matches: Some(Matches { agents: 7, names: vec!["a".to_owned(), "a b".to_owned()] }),
            forgotten: Some(Matches { agents: 1, names: vec!["a[7]".to_owned()] }),
            living: None,
            acknowledged: None,
            lines: vec!["a was read again".to_owned()],
        };
        for answer in [answer, Response::refused("no"), Response::malformed("what?")] {
            assert_eq!(Response::parse(answer.to_line().as_bytes()), Ok(answer));
        }
    }

    #[test]
    fn a_request_that_makes_no_sense_is_told_what_is_wrong() {
        for (line, said) in [
            ("", "is not JSON"),
            ("\u{0}", "is not JSON"),
            ("pause batch", "is not JSON"),
            ("{} {}", "is not JSON"),
            ("[1]", "is not a JSON object"),
            ("{}", "v: is missing"),
            (r#"{"v":"1"}"#, "v: is not a whole number"),
            (r#"{"v":2,"do":"pauses"}"#, "v: 2 is not spoken here"),
            (r#"{"v":1}"#, "do: is missing"),
            (r#"{"v":1,"do":"stop"}"#, "do: `stop` is none of pause, resume, pauses, forget, ack, unack"),
            (r#"{"v":1,"do":"pauses","all":true}"#, "all: there is no such key here"),
            (r#"{"v":1,"do":"forget"}"#, "who: is missing"),
            (r#"{"v":1,"do":"forget","who":""}"#, "who: has 1 to 128 characters"),
            (r#"{"v":1,"do":"resume"}"#, "pattern: is missing"),
            (r#"{"v":1,"do":"resume","pattern":""}"#, "pattern: has 1 to 128 characters"),
            (r#"{"v":1,"do":"resume","pattern":"a","for_ms":1000}"#, "for_ms: there is no such key here"),
            (r#"{"v":1,"do":"pause","pattern":"a"}"#, "for_ms: is missing"),
            (r#"{"v":1,"do":"pause","pattern":"a","for_ms":1.5}"#, "for_ms: is not a whole number"),
            (r#"{"v":1,"do":"pause","pattern":"a","for_ms":-1}"#, "for_ms: is not a whole number"),
            (r#"{"v":1,"do":"pause","pattern":"a","for_ms":999}"#, "for_ms: 999ms is not between"),
            (r#"{"v":1,"do":"pause","pattern":"a","for_ms":31622400001}"#, "for_ms: "),
            (r#"{"v":1,"do":"pause","pattern":"a","for_ms":1000,"reason":"a\u0007"}"#, "reason: has 1 to"),
            (r#"{"v":1,"do":"pause","pattern":"a","for_ms":1000,"reason":1}"#, "reason: is not a string"),
        ] {
            let fault = Request::parse(line.as_bytes()).unwrap_err();
            assert!(fault.starts_with(said), "{line}: {fault}");
        }
        assert!(Request::parse("[".repeat(MAX_REQUEST_LEN).as_bytes()).is_err());
        assert!(Request::parse(b"{\"v\":1,\"do\":\"\xff\"}").is_err());
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_an_error() {
        let matches = r#"{"v":1,"outcome":"ok","pauses":[],"matches":{"agents":1,"names":[1]}}"#;
        for line in ["", "{}", r#"{"v":2,"outcome":"ok"}"#, r#"{"v":1,"outcome":"perhaps"}"#, matches] {
            assert!(Response::parse(line.as_bytes()).is_err(), "{line}");
        }
        let answer = Response::parse(br#"{"v":1,"outcome":"ok","pauses":[{}],"new":1}"#).unwrap();
        assert!(answer.read_pauses().is_err());
    }
}
