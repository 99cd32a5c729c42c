//! The `[[recovery]]` tables of the configuration file. Omitted keys are left to the options.

use std::time::Duration;

use nix::sys::signal::Signal;
use toml::de::DeValue;

use crate::base::Glob;
use crate::base::limits::{MAX_COMMAND_TIMEOUT, MAX_DURATION, MIN_STALL_AFTER};
use crate::base::options::parse_duration;
use crate::base::options::table::{
    ParseError, ReadTables, Table, Value, at, decimal, duration, text, wrong_type,
};
use crate::base::options::table_key::{KeyKind, TableKey};
use crate::domain::beat::Transport;
use crate::domain::tracker::Cause;
use crate::services::recovery::budget::Budget;
use crate::services::recovery::command::CommandLine;
use crate::services::recovery::rule::{Action, RecoveryRule, SignalScope, Step, UnhealthyState};

/// Each `[[recovery]]` of the file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryTables(Vec<RecoveryEntry>);

impl RecoveryTables {
    /// Each of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &RecoveryEntry> {
        self.0.iter()
    }
}

impl ReadTables for RecoveryTables {
    const NAME: &str = "recovery";
    const ABOUT: &str =
        "What is done about agents in bad states. The first table that matches a change applies";
    const KEYS: &[TableKey] = &KEYS;
    const REQUIRED: &[(&str, &str)] = &[("exec", "true")];

    fn add(&mut self, table: &Table<'_, '_>) -> Result<(), ParseError> {
        let entry = RecoveryEntry::read(table, self.0.len())?;
        self.0.push(entry);
        Ok(())
    }
}

/// A table of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryEntry {
    /// The pattern of the agents' names; see [`RecoveryRule`] for all fields.
    pub name: Glob,
    /// Labels that they must have.
    pub labels: Vec<(String, String)>,
    /// The states.
    pub states: Vec<UnhealthyState>,
    /// The causes.
    pub causes: Vec<&'static str>,
    /// The transports.
    pub transports: Vec<Transport>,
    /// The steps; a command may have no timeout of its own.
    steps: Vec<(Duration, StepEntry)>,
    /// `None` for the option's value.
    pub debounce: Option<Duration>,
    /// `None` for the option's value.
    pub backoff: Option<Duration>,
    /// `None` for the option's value.
    pub attempts: Option<u32>,
    /// `None` for the option's value.
    pub budget: Option<Budget>,
    /// `None` for the default of [`RecoveryRule::min_healthy`].
    pub keep_up: Option<u32>,
    /// See [`RecoveryRule::give_up_retry`].
    pub give_up_retry: Option<Duration>,
    /// See [`RecoveryRule::final_exit_statuses`].
    pub final_exit_statuses: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum StepEntry {
    Notify,
    Signal(Signal, SignalScope),
    Command(CommandLine, Option<Duration>),
}

/// The keys of a table.
const KEYS: [TableKey; 14] = [
    TableKey::optional(
        "name",
        KeyKind::Text(Glob::MAX_LEN),
        "Pattern of the agents' names: `*` matches any characters or none, `?` matches one",
    )
    .or("*"),
    TableKey::optional(
        "label",
        ONE_OR_MORE_TEXTS,
        "Labels that the agent must have: KEY=VALUE, one or a list",
    ),
    TableKey::optional(
        "state",
        KeyKind::AnyOf(&[STATE, KeyKind::List(&STATE)]),
        "States that are acted on; stalled and down if none is given",
    ),
    TableKey::optional(
        "cause",
        KeyKind::AnyOf(&[CAUSE, KeyKind::List(&CAUSE)]),
        "Causes that are acted on; any if none is given",
    ),
    TableKey::optional(
        "transport",
        KeyKind::AnyOf(&[TRANSPORT, KeyKind::List(&TRANSPORT)]),
        "Transports of the agents; any if none is given",
    ),
    TableKey::one_of("exec", COMMAND, "Command to run, split into words as by a shell, and run without one"),
    TableKey::one_of(
        "steps",
        KeyKind::SomeOf(&KeyKind::Table(&STEP_KEYS), MAX_STEPS),
        "Actions, each taken if the agent is still in a bad state then",
    ),
    TableKey::optional(
        "debounce",
        WAIT,
        "Minimum time between the starts of two attempts; recovery-debounce if not given",
    ),
    TableKey::optional(
        "backoff",
        WAIT,
        "Wait after an attempt without success, which doubles; recovery-backoff if not given",
    ),
    TableKey::optional(
        "attempts",
        KeyKind::Number(1, u32::MAX),
        "Maximum number of attempts; recovery-attempts if not given",
    ),
    TableKey::optional(
        "budget",
        TEXT,
        "Maximum number of signals and commands per duration, as in 3/1h; recovery-group-budget if not given",
    ),
    TableKey::optional(
        "keep-up",
        KeyKind::Number(0, u32::MAX),
        "How many other agents of the name must be up",
    ),
    TableKey::optional(
        "give-up-retry",
        KeyKind::Duration(MIN_GIVE_UP_RETRY, MAX_DURATION),
        "Time after which an agent that was given up gets one more attempt, again and again; never if not given",
    ),
    TableKey::optional(
        "final-exit-status",
        KeyKind::AnyOf(&[EXIT_STATUS, KeyKind::List(&EXIT_STATUS)]),
        "Exit statuses by which a process says that it is not to be started again: one or a list",
    ),
];
/// The keys of a step.
const STEP_KEYS: [TableKey; 5] = [
    TableKey::optional("wait", WAIT, "Wait since the step before, or since the change").or("0s"),
    TableKey::one_of("notify", KeyKind::True, "Send a notification"),
    TableKey::one_of(
        "signal",
        KeyKind::AnyOf(&[TEXT, KeyKind::Table(&SIGNAL_KEYS)]),
        "Signal to send, as in TERM or SIGTERM",
    ),
    TableKey::one_of("exec", COMMAND, "Command to run"),
    TableKey::optional(
        "timeout",
        KeyKind::Duration(MIN_STALL_AFTER, MAX_COMMAND_TIMEOUT),
        "Maximum run time of the command; recovery-timeout if not given",
    ),
];
/// The keys of a signal that is a table.
const SIGNAL_KEYS: [TableKey; 2] = [
    TableKey::required("name", TEXT, "Signal to send, as in TERM or SIGTERM"),
    TableKey::optional(
        "to",
        KeyKind::OneOf(|| SignalScope::ALL.map(SignalScope::as_str).to_vec()),
        "Whom it reaches",
    )
    .or("process"),
];
const TEXT: KeyKind = KeyKind::AnyText;
const WAIT: KeyKind = KeyKind::Duration(Duration::ZERO, MAX_DURATION);
const ONE_OR_MORE_TEXTS: KeyKind = KeyKind::AnyOf(&[TEXT, KeyKind::List(&TEXT)]);
const COMMAND: KeyKind = KeyKind::Text(CommandLine::MAX_LEN);
const STATE: KeyKind = KeyKind::OneOf(|| UnhealthyState::ALL.map(UnhealthyState::as_str).to_vec());
const CAUSE: KeyKind = KeyKind::OneOf(|| Cause::NAMES.to_vec());
const EXIT_STATUS: KeyKind = KeyKind::Number(0, 255);
const TRANSPORT: KeyKind = KeyKind::OneOf(|| TRANSPORTS.map(Transport::as_str).to_vec());
/// The transports of agents: one that beats through shared memory counts as an agent of the Unix socket.
const TRANSPORTS: [Transport; 4] = [Transport::Unix, Transport::Udp, Transport::SecureUdp, Transport::Notify];
/// The least time between two attempts on an agent that was given up.
const MIN_GIVE_UP_RETRY: Duration = Duration::from_secs(60);
/// The most tables, and the most steps in each.
const MAX_TABLES: usize = 256;
const MAX_STEPS: usize = 16;

impl RecoveryEntry {
    /// The entry for all agents that are stalled or down.
    pub(crate) fn for_all() -> Self {
        RecoveryEntry {
            name: Glob::any(),
            labels: Vec::new(),
            states: vec![UnhealthyState::Stalled, UnhealthyState::Down],
            causes: Vec::new(),
            transports: Vec::new(),
            steps: Vec::new(),
            debounce: None,
            backoff: None,
            attempts: None,
            budget: None,
            keep_up: None,
            give_up_retry: None,
            final_exit_statuses: Vec::new(),
        }
    }

    /// The steps, with this timeout for commands without one of their own.
    pub(crate) fn steps(&self, timeout: Duration) -> Vec<Step> {
        let step = |(wait, entry): &(Duration, StepEntry)| Step {
            wait: *wait,
            action: match entry {
                StepEntry::Notify => Action::Notify,
                StepEntry::Signal(signal, to) => Action::Signal(*signal, *to),
                StepEntry::Command(command, own) => Action::Command(command.clone(), own.unwrap_or(timeout)),
            },
        };
        self.steps.iter().map(step).collect()
    }

    /// Parses a table, of which `count` precede it.
    fn read(table: &Table<'_, '_>, count: usize) -> Result<Self, ParseError> {
        let [
            name,
            label,
            state,
            cause,
            transport,
            exec,
            steps,
            debounce,
            backoff,
            attempts,
            budget,
            keep_up,
            give_up_retry,
            final_exit_status,
        ] = table.values(&KEYS)?;
        if count >= MAX_TABLES {
            return Err(at(
                table.place,
                format!("there are more than {MAX_TABLES}, which is the most that there may be"),
            ));
        }
        let mut entry = RecoveryEntry::for_all();
        if let Some(value) = name {
            entry.name = Glob::parse(text("name", value)?).map_err(|error| at(value, error))?;
        }
        entry.labels = list(label, |value| {
            let label = text("label", value)?;
            let (key, wanted) = label.split_once('=').ok_or_else(|| at(value, "label: is not KEY=VALUE"))?;
            Ok((key.to_owned(), wanted.to_owned()))
        })?;
        let states =
            list(state, |value| one_of("state", value, &UnhealthyState::ALL, |state| state.as_str()))?;
        if !states.is_empty() {
            entry.states = states;
        }
        entry.causes = list(cause, |value| {
            let name = text("cause", value)?;
            RecoveryRule::cause_named(name)
                .ok_or_else(|| at(value, format!("cause: `{}`: there is no such cause", name.escape_debug())))
        })?;
        entry.transports =
            list(transport, |value| one_of("transport", value, &TRANSPORTS, |way| way.as_str()))?;
        entry.steps = match (exec, steps) {
            (Some(value), None) => vec![(Duration::ZERO, StepEntry::Command(command(value)?, None))],
            (None, Some(value)) => read_steps(value)?,
            (Some(value), Some(_)) => {
                return Err(at(value, "exec: a table has either exec or steps; put it into a step"));
            }
            (None, None) => return Err(at(table.place, "needs exec, or steps")),
        };
        entry.debounce = debounce.map(|value| wait("debounce", value)).transpose()?;
        entry.backoff = backoff.map(|value| wait("backoff", value)).transpose()?;
        entry.attempts = attempts.map(|value| number("attempts", value, 1)).transpose()?;
        entry.keep_up = keep_up.map(|value| number("keep-up", value, 0)).transpose()?;
        entry.give_up_retry = give_up_retry
            .map(|value| {
                let after = wait("give-up-retry", value)?;
                let is_too_short = after < MIN_GIVE_UP_RETRY;
                if is_too_short { Err(at(value, "give-up-retry: is less than 1m")) } else { Ok(after) }
            })
            .transpose()?;
        entry.final_exit_statuses = list(final_exit_status, |value| {
            let status = number("final-exit-status", value, 0)?;
            let fault = || at(value, format!("final-exit-status: {status} is not between 0 and 255"));
            u8::try_from(status).map_err(|_| fault())
        })?;
        entry.budget = budget
            .map(|value| {
                text("budget", value)?.parse().map_err(|fault| at(value, format!("budget: {fault}")))
            })
            .transpose()?;
        Ok(entry)
    }
}

/// A single value, or several in a list.
fn list<'t, 'i, T>(
    value: Option<&'t Value<'i>>,
    read: impl Fn(&'t Value<'i>) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    match value.map(|value| (value, value.get_ref())) {
        None => Ok(Vec::new()),
        Some((_, DeValue::Array(items))) => items.iter().map(read).collect(),
        Some((value, _)) => Ok(vec![read(value)?]),
    }
}

fn one_of<T: Copy>(
    key: &str,
    value: &Value<'_>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, ParseError> {
    let wanted = text(key, value)?;
    all.iter().copied().find(|one| name(*one) == wanted).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
        at(value, format!("{key}: `{}` is none of {}", wanted.escape_debug(), names.join(", ")))
    })
}

fn read_steps(value: &Value<'_>) -> Result<Vec<(Duration, StepEntry)>, ParseError> {
    let DeValue::Array(items) = value.get_ref() else {
        return Err(at(value, format!("steps: {}", wrong_type(value.get_ref(), "a list of tables is"))));
    };
    if items.is_empty() || items.len() > MAX_STEPS {
        return Err(at(value, format!("steps: there are 1 to {MAX_STEPS} of them")));
    }
    items.iter().map(read_step).collect()
}

fn read_step(item: &Value<'_>) -> Result<(Duration, StepEntry), ParseError> {
    let DeValue::Table(entries) = item.get_ref() else {
        return Err(at(item, "steps: each is a table, as in { wait = \"5s\", signal = \"TERM\" }"));
    };
    let table = Table { what: "step", place: item, entries };
    let [waits, notify, signal, exec, timeout] = table.values(&STEP_KEYS)?;
    let waits = waits.map(|value| wait("wait", value)).transpose()?.unwrap_or_default();
    let own = timeout
        .map(|value| {
            let own = duration("timeout", value)?;
            if own > MAX_COMMAND_TIMEOUT { Err(at(value, "timeout: is more than 24h")) } else { Ok(own) }
        })
        .transpose()?;
    if let (Some(value), None) = (timeout, exec) {
        return Err(at(value, "timeout: does nothing without exec"));
    }
    let step = match (notify, signal, exec) {
        (Some(value), None, None) => match value.get_ref() {
            DeValue::Boolean(true) => StepEntry::Notify,
            _ => return Err(at(value, "notify: is true, or left out")),
        },
        (None, Some(value), None) => read_signal(value)?,
        (None, None, Some(value)) => StepEntry::Command(command(value)?, own),
        _ => return Err(at(item, "a step has one of notify, signal and exec")),
    };
    Ok((waits, step))
}

fn command(value: &Value<'_>) -> Result<CommandLine, ParseError> {
    text("exec", value)?.parse().map_err(|fault| at(value, format!("exec: {fault}")))
}

/// Reads `"TERM"`, or `{ name = "TERM", to = "group" }`.
fn read_signal(value: &Value<'_>) -> Result<StepEntry, ParseError> {
    let DeValue::Table(entries) = value.get_ref() else {
        return Ok(StepEntry::Signal(parse_signal(value)?, SignalScope::Process));
    };
    let table = Table { what: "signal", place: value, entries };
    let [name, to] = table.values(&SIGNAL_KEYS)?;
    let to = to.map(|to| one_of("to", to, &SignalScope::ALL, SignalScope::as_str)).transpose()?;
    let name =
        name.ok_or_else(|| at(value, "signal: needs a name, as in { name = \"TERM\", to = \"group\" }"))?;
    Ok(StepEntry::Signal(parse_signal(name)?, to.unwrap_or(SignalScope::Process)))
}

/// Parses `TERM` or `SIGTERM`.
fn parse_signal(value: &Value<'_>) -> Result<Signal, ParseError> {
    let name = text("signal", value)?;
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    full.parse().map_err(|_| {
        at(
            value,
            format!(
                "signal: `{}`: there is no such signal; it is TERM, KILL, ABRT, ...",
                name.escape_debug()
            ),
        )
    })
}

/// Parses a duration that may be zero.
fn wait(key: &'static str, value: &Value<'_>) -> Result<Duration, ParseError> {
    let text = text(key, value)?;
    let time = parse_duration(text)
        .map_err(|error| at(value, format!("{key}: `{}`: {error}", text.escape_debug())))?;
    if time > MAX_DURATION { Err(at(value, format!("{key}: is more than 366 days"))) } else { Ok(time) }
}

fn number(key: &str, value: &Value<'_>, least: u32) -> Result<u32, ParseError> {
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(at(value, format!("{key}: {}", wrong_type(value.get_ref(), "a number is"))));
    };
    let number = decimal(number).and_then(|number| number.parse().ok()).filter(|number| *number >= least);
    number.ok_or_else(|| at(value, format!("{key}: is not a number from {least} to {}", u32::MAX)))
}
