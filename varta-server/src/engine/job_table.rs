//! The tables `[[job]]` of the configuration file.

use toml::de::DeValue;
use varta_proto::control::AgentName;

use crate::base::limits::MAX_DURATION;
use crate::base::options::table::{
    ParseError, ReadTables, Table, Value, at, decimal, duration, text, wrong_type,
};
use crate::base::options::table_key::{KeyKind, TableKey};
use crate::base::time_zone::TimeZone;
use crate::domain::schedule::Schedule;
use crate::domain::{Job, Jobs};

/// The longest name of a time zone.
const MAX_ZONE: usize = 64;

/// The keys of a job.
const JOB_KEYS: [TableKey; 8] = [
    TableKey::required("name", KeyKind::Text(AgentName::MAX_LEN), "Name of the agents that are its runs"),
    TableKey::optional(
        "schedule",
        KeyKind::Text(Schedule::MAX_BYTES),
        "When a run is due: an expression of cron, a calendar event of systemd, or a duration",
    ),
    TableKey::optional(
        "every",
        KeyKind::Duration(Schedule::MIN_INTERVAL, MAX_DURATION),
        "Longest time from the start of a run to that of the next",
    ),
    TableKey::optional(
        "timezone",
        KeyKind::Text(MAX_ZONE),
        "Time zone of the schedule, by default the host's",
    ),
    TableKey::optional("grace", KeyKind::ANY_DURATION, "How late a run may begin").or("1m"),
    TableKey::optional("longest-run", KeyKind::ANY_DURATION, "How long a run may take"),
    TableKey::optional(
        "alarm-on-overlap",
        KeyKind::True,
        "Whether it is an alarm that a run begins while another is under way",
    ),
    TableKey::optional(
        "uid",
        KeyKind::Number(0, u32::MAX - 1),
        "User whose agents are its runs, by default any that may beat",
    ),
];

impl ReadTables for Jobs {
    const NAME: &str = "job";
    const ABOUT: &str = "A job whose runs are due by a schedule, and that is reported when none has begun";
    const KEYS: &[TableKey] = &JOB_KEYS;
    const REQUIRED: &[(&str, &str)] = &[("name", "a"), ("schedule", "daily")];

    fn add(&mut self, table: &Table<'_, '_>) -> Result<(), ParseError> {
        let [name, schedule, every, timezone, grace, longest_run, alarm_on_overlap, uid] =
            table.values(&JOB_KEYS)?;
        let (place, name) = table.name(name)?;
        let name = AgentName::parse(name)
            .map_err(|error| at(place, format!("name: `{}`: {error}", name.escape_debug())))?;
        let zone = timezone.map(zone).transpose()?;
        let schedule = match (schedule, every) {
            (Some(value), None) => read_schedule(text("schedule", value)?, value, zone)?,
            (None, Some(value)) if zone.is_none() => {
                duration("every", value)?;
                let every = text("every", value)?;
                Schedule::parse(&format!("every {every}"), &TimeZone::utc(), |_| None)
                    .map_err(|error| at(value, format!("every: {error}")))?
            }
            (None, Some(value)) => {
                return Err(at(value, "every: has no use for a timezone; leave one of them out"));
            }
            (Some(_), Some(value)) => {
                return Err(at(value, "every: is a schedule, too; leave one of them out"));
            }
            (None, None) => return Err(at(table.place, "a [[job]] needs a schedule, or every")),
        };
        let grace = grace.map(|value| duration("grace", value)).transpose()?.unwrap_or(Job::DEFAULT_GRACE);
        let longest_run = longest_run.map(|value| duration("longest-run", value)).transpose()?;
        let alarm_on_overlap = match alarm_on_overlap.map(|value| (value, value.get_ref())) {
            None => false,
            Some((_, DeValue::Boolean(true))) => true,
            Some((value, _)) => return Err(at(value, "alarm-on-overlap: is true, or left out")),
        };
        let uid = uid.map(number).transpose()?;
        Jobs::add(self, Job { name, schedule, grace, longest_run, alarm_on_overlap, uid })
            .map_err(|error| at(place, error))
    }
}

fn zone(value: &Value<'_>) -> Result<TimeZone, ParseError> {
    TimeZone::named(text("timezone", value)?).map_err(|error| at(value, format!("timezone: {error}")))
}

fn read_schedule(text: &str, value: &Value<'_>, zone: Option<TimeZone>) -> Result<Schedule, ParseError> {
    let fault = |error: String| at(value, format!("schedule: {error}"));
    let zone = match zone {
        Some(zone) => zone,
        None => TimeZone::of_host().map_err(|error| fault(error.to_string()))?,
    };
    Schedule::parse(text, &zone, |name| TimeZone::named(name).ok()).map_err(|error| fault(error.to_string()))
}

fn number(value: &Value<'_>) -> Result<u32, ParseError> {
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(at(value, format!("uid: {}", wrong_type(value.get_ref(), "an integer is"))));
    };
    let number = decimal(number).and_then(|number| number.parse().ok()).filter(|number| *number < u32::MAX);
    number.ok_or_else(|| at(value, "uid: is no id of a user"))
}
