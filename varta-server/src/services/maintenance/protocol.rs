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
use crate::services::maintenance::names::{MAX_NAMES, NamesOf};
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

// And so do all names that are listed.
const _: () = assert!(MAX_NAMES * (4 * Glob::MAX_LEN + 4) + 1_024 <= MAX_RESPONSE_LEN);

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
    /// Says how the server and its agents are.
    Status,
    /// Says what a check-up of the server and its agents needs.
    Examine,
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
    /// Starts another server, which takes over.
    Upgrade,
    /// Hands over to the server that asks; what follows on the connection is no line.
    TakeOver {
        /// The version of the form of what is handed over that it understands.
        version: u32,
    },
    /// Ends acknowledgements.
    TakeBack {
        /// The agents.
        who: AgentPattern,
    },
    /// Lists the names that the argument of a command may have.
    Names {
        /// The command.
        of: NamesOf,
        /// What they begin with.
        start: String,
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
            "status" => Request::Status,
            "examine" => Request::Examine,
            "forget" => Request::Forget {
                who: parse_who(&fields.need_text("who")?)?,
                reason: fields.text("reason")?.map(|text| parse_reason(&text)).transpose()?,
            },
            "ack" => Request::Acknowledge {
                who: parse_who(&fields.need_text("who")?)?,
                reason: fields.text("reason")?.map(|text| parse_reason(&text)).transpose()?,
            },
            "reload" => Request::Reload,
            "upgrade" => Request::Upgrade,
            "take_over" => {
                Request::TakeOver { version: u32::try_from(fields.need_number("form")?).unwrap_or(u32::MAX) }
            }
            "unack" => Request::TakeBack { who: parse_who(&fields.need_text("who")?)? },
            "names" => Request::Names {
                of: NamesOf::parse(&fields.need_text("for")?)?,
                start: fields.text("start")?.unwrap_or_default(),
            },
            other => {
                let other = other.escape_debug();
                return Err(format!(
                    "do: `{other}` is none of pause, resume, pauses, forget, ack, unack, names, status, examine, reload, upgrade"
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
            Request::Status => json!({ "v": VERSION, "do": "status" }),
            Request::Examine => json!({ "v": VERSION, "do": "examine" }),
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
            Request::Upgrade => json!({ "v": VERSION, "do": "upgrade" }),
            Request::TakeOver { version } => {
                json!({ "v": VERSION, "do": "take_over", "form": version })
            }
            Request::TakeBack { who } => json!({ "v": VERSION, "do": "unack", "who": who.as_str() }),
            Request::Names { of, start } => {
                json!({ "v": VERSION, "do": "names", "for": of.as_str(), "start": start })
            }
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
    /// The names that were asked for.
    pub(crate) names: Vec<String>,
    /// How the server and its agents are, or what a check-up needs.
    pub(crate) status: Option<Value>,
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
        let shown = |agent: &AgentId| match agent.shown_pid() {
            None => agent.name.to_string(),
            Some(pid) => format!("{}[{pid}]", agent.name),
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

    pub(super) fn to_json(&self) -> Value {
        json!({ "agents": self.agents, "names": self.names })
    }

    fn of(value: Value) -> Result<Self, String> {
        let mut fields = JsonObject::of(value)?;
        let agents = fields.need_number("agents")?;
        Ok(Matches { agents, names: fields.texts("names")? })
    }
}

/// The request of a server that wants to take over, as a line.
pub(crate) fn take_over_request(version: u32) -> String {
    Request::TakeOver { version }.to_line()
}

/// The answer to a request to upgrade, as a line: what was done, or why nothing was.
pub(crate) fn upgrade_answer(result: Result<String, String>) -> String {
    match result {
        Ok(done) => Response {
            outcome: ResponseStatus::Ok,
            word: None,
            lines: vec![done],
            kept: true,
            ..Response::refused("")
        },
        Err(why) => Response::refused(why),
    }
    .to_line()
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
            names: Vec::new(),
            status: None,
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
                if !self.names.is_empty() {
                    fields.insert("names".to_owned(), json!(self.names));
                }
                if let Some(status) = &self.status {
                    fields.insert("status".to_owned(), status.clone());
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
        let (lines, names, status) = (fields.texts("lines")?, fields.texts("names")?, fields.value("status"));
        Ok(Response {
            outcome,
            word,
            pauses,
            kept,
            matches,
            forgotten,
            living,
            acknowledged,
            lines,
            names,
            status,
        })
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
mod tests;
