//! A pause, and its JSON form, which responses and the file of pauses share.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use serde_json::json;

use crate::base::Glob;
use crate::base::limits::MAX_DURATION;
use crate::base::time::{parse_rfc3339, rfc3339};
use crate::services::maintenance::json_object::JsonObject;
use crate::services::maintenance::options::Reason;

/// The shortest pause that can be requested.
pub(crate) const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The source of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestedBy {
    /// A request on the control socket by this uid, as the kernel reports it.
    User(u32),
    /// The configuration file.
    Configuration,
}

/// Writes `uid 1000` or `configuration`.
impl fmt::Display for RequestedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestedBy::User(uid) => write!(f, "uid {uid}"),
            RequestedBy::Configuration => f.write_str("configuration"),
        }
    }
}

/// A pattern of agents' names, and a time in which those agents cause no alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// The pattern of the names.
    pub(crate) pattern: Glob,
    /// The start; `None` for the time of the request. Only a planned pause can start in the future.
    pub(crate) from: Option<SystemTime>,
    /// The end; `None` for a planned pause without one.
    pub(crate) until: Option<SystemTime>,
    /// The reason.
    pub(crate) reason: Option<Reason>,
    /// The source.
    pub(crate) by: RequestedBy,
    /// The time of the request, or of the first load of the configuration that has it.
    pub(crate) since: SystemTime,
}

impl Pause {
    /// Whether it is in force at `now`.
    pub(crate) fn is_in_force(&self, now: SystemTime) -> bool {
        self.from.is_none_or(|from| from <= now) && !self.is_over(now)
    }

    /// Whether it has ended by `now`.
    pub(crate) fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Converts the pause to a JSON object. Times are RFC 3339 in UTC, with milliseconds.
    pub(crate) fn to_json(&self) -> Value {
        let (by, uid) = match self.by {
            RequestedBy::User(uid) => ("user", Some(uid)),
            RequestedBy::Configuration => ("configuration", None),
        };
        json!({
            "pattern": self.pattern.as_str(),
            "from": self.from.map(rfc3339),
            "until": self.until.map(rfc3339),
            "reason": self.reason.as_ref().map(Reason::as_str),
            "by": by,
            "uid": uid,
            "since": rfc3339(self.since),
        })
    }

    /// Parses the output of [`to_json`](Pause::to_json) with every check. Unknown keys, which a newer version
    /// may add, are ignored.
    ///
    /// # Errors
    ///
    /// The first invalid key.
    pub(crate) fn from_json(value: Value) -> Result<Self, String> {
        let mut fields = JsonObject::of(value)?;
        let pattern = parse_pattern(&fields.need_text("pattern")?)?;
        let reason = fields.text("reason")?.map(|text| parse_reason(&text)).transpose()?;
        let by = match fields.need_text("by")?.as_str() {
            "user" => {
                let uid = fields.need_number("uid")?;
                RequestedBy::User(
                    u32::try_from(uid).map_err(|_| format!("uid: {uid} is not the id of a user"))?,
                )
            }
            "configuration" => RequestedBy::Configuration,
            other => {
                return Err(format!("by: `{}` is neither user nor configuration", other.escape_debug()));
            }
        };
        let mut moment = |key: &str| -> Result<Option<SystemTime>, String> {
            let Some(text) = fields.text(key)? else { return Ok(None) };
            let at = parse_rfc3339(&text);
            at.map(Some).map_err(|error| format!("{key}: `{}`: {error}", text.escape_debug()))
        };
        let [from, until, since] = [moment("from")?, moment("until")?, moment("since")?];
        let since = since.ok_or("since: is missing")?;
        Ok(Pause { pattern, from, until, reason, by, since })
    }

    /// Whether a request can have caused it.
    pub(crate) fn could_be_asked_for(&self) -> bool {
        let length = self.until.and_then(|until| until.duration_since(self.since).ok());
        matches!(self.by, RequestedBy::User(_))
            && self.from.is_none()
            && length.is_some_and(|length| (MIN_PAUSE..=MAX_DURATION).contains(&length))
    }
}

/// Parses a pattern from outside.
///
/// # Errors
///
/// The fault, with its key.
pub(crate) fn parse_pattern(text: &str) -> Result<Glob, String> {
    Glob::parse(text).map_err(|_| {
        format!("pattern: has 1 to {} characters, and none of them is a control character", Glob::MAX_LEN)
    })
}

/// Parses a reason from outside.
///
/// # Errors
///
/// The fault, with its key.
pub(crate) fn parse_reason(text: &str) -> Result<Reason, String> {
    Reason::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::maintenance::testing::{asked, at, planned};

    #[test]
    fn it_counts_from_its_beginning_to_its_end() {
        let pause = planned("a", Some(10), Some(20));
        let in_force: Vec<u64> = (8..23).filter(|seconds| pause.is_in_force(at(*seconds))).collect();
        assert_eq!(in_force, (10..20).collect::<Vec<_>>());
        assert!(planned("a", None, None).is_in_force(at(0)));
        // A requested pause counts at once, also if the clock is then set back.
        assert!(asked("a", 20).is_in_force(at(0)));
    }

    #[test]
    fn what_is_written_is_read() {
        let reason = Some(Reason::parse("a \"reason\", größer").unwrap());
        for pause in [
            Pause { reason, ..asked("batch-*", 3_600) },
            planned("a", None, None),
            planned("a", Some(86_400), Some(90_000)),
        ] {
            assert_eq!(Pause::from_json(pause.to_json()), Ok(pause));
        }
        let text = asked("a", 3_600).to_json().to_string();
        assert!(text.contains("\"until\":\"1970-01-01T01:00:00.000Z\""), "{text}");
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_key() {
        let good = || asked("a", 3_600).to_json();
        for (key, value, said) in [
            ("pattern", json!(""), "pattern: has 1 to 128 characters"),
            ("pattern", json!(null), "pattern: is missing"),
            ("pattern", json!(["a"]), "pattern: is not a string"),
            ("until", json!("soon"), "until: `soon`: "),
            ("since", json!(null), "since: is missing"),
            ("reason", json!("a\u{1b}[2J"), "reason: has 1 to 256 bytes"),
            ("by", json!("me"), "by: `me` is neither"),
            ("uid", json!(-1), "uid: is not a whole number"),
            ("uid", json!(1_u64 << 32), "uid: 4294967296 is not the id of a user"),
        ] {
            let mut broken = good();
            broken[key] = value;
            let fault = Pause::from_json(broken).unwrap_err();
            assert!(fault.starts_with(said), "{fault}");
        }
        assert!(Pause::from_json(json!([])).is_err());
    }

    #[test]
    fn only_what_could_have_been_asked_for_passes_for_it() {
        assert!(asked("a", 3_600).could_be_asked_for());
        assert!(!planned("a", None, Some(3_600)).could_be_asked_for());
        let longest = MAX_DURATION.as_secs();
        assert!(asked("a", longest).could_be_asked_for() && !asked("a", longest + 1).could_be_asked_for());
        assert!(!Pause { until: None, ..asked("a", 1) }.could_be_asked_for());
        assert!(!Pause { since: at(5), ..asked("a", 5) }.could_be_asked_for());
    }
}
