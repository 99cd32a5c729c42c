//! By which rules agents are judged: their number, their rate and their time.

use std::borrow::Cow;
use std::time::Duration;

use clap::Args;
use toml::de::DeValue;
use varta_proto::control::AgentName;

use crate::base::Glob;
use crate::base::error::Error;
use crate::base::limits::{MAX_DURATION, MAX_REPLACED_WITHIN, MIN_STALL_AFTER};
use crate::base::options::table::{
    ParseError, ParseErrors, ReadTables, Table, TableDefinition, TomlKey, Value, at, decimal, duration,
    grace, wrong_type,
};
use crate::base::options::table_key::{KeyKind, TableKey};
use crate::base::options::{OptionFaults, parse_duration};
use crate::base::time_zone::TimeZone;
use crate::domain::process::SuccessExit;
use crate::domain::tracker::Policy;
use crate::domain::tracker::arrival::ArrivalPolicy;
use crate::domain::{Expected, ExpectedAgents, ForgetAfter, Jobs, ProgressRule, Rule, Rules};
use crate::engine::detector_options::{DetectorArgs, check_detector};

/// What the tracker goes by. A group of options.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Silence after which an agent counts as stalled
    #[arg(long, env = "VARTA_STALL_AFTER", value_name = "DURATION", default_value = "5s",
          value_parser = parse_duration)]
    pub stall_after: Duration,

    /// How long the counter of an agent that makes progress may stand before it is stalled
    ///
    /// For agents that declare such a counter, or whose rule has `progress = "payload"`, and that have no time of
    /// their own.
    #[arg(long, env = "VARTA_NO_PROGRESS_AFTER", value_name = "DURATION", default_value = "60s",
          value_parser = parse_duration, hide_short_help = true)]
    pub no_progress_after: Duration,

    /// Longest silence that an agent may request, permanently or once
    #[arg(long, env = "VARTA_LONGEST_SILENCE", value_name = "DURATION", default_value = "1h",
          value_parser = parse_duration, hide_short_help = true)]
    pub longest_silence: Duration,

    /// Maximum number of tracked agents
    ///
    /// Further agents are refused and counted.
    #[arg(long, env = "VARTA_MAX_AGENTS", value_name = "N", default_value_t = Policy::DEFAULT_MAX_AGENTS)]
    pub max_agents: usize,

    /// Maximum number of agents that one address may introduce over --udp; 0 for no limit
    ///
    /// All loopback addresses count as one address, and so does an IPv6 network of 64 bits. If the server has
    /// other listeners too, it reserves a quarter of --max-agents for agents that do not use plaintext.
    #[arg(long, env = "VARTA_MAX_AGENTS_PER_SOURCE", value_name = "N",
          default_value_t = Policy::DEFAULT_MAX_AGENTS_PER_SOURCE, hide_short_help = true)]
    pub max_agents_per_source: usize,

    /// Maximum number of beats accepted per second from one agent; 0 for no limit
    #[arg(long, env = "VARTA_MAX_BEAT_RATE", value_name = "N",
          default_value_t = Policy::DEFAULT_MAX_BEAT_RATE, hide_short_help = true)]
    pub max_beat_rate: u32,

    /// Maximum number of beats accepted per second from all agents together; 0 for no limit
    #[arg(long, env = "VARTA_MAX_TOTAL_RATE", value_name = "N", default_value_t = 0, hide_short_help = true)]
    pub max_total_rate: u32,

    /// How long a silent agent is remembered
    #[arg(long, env = "VARTA_FORGET_AFTER", value_name = "DURATION", default_value = "24h",
          value_parser = parse_duration)]
    pub forget_after: Duration,

    /// How long after the end of a process another may take its place without an alarm; 0s for not at all
    ///
    /// A process takes the place of one of the same name, or of the same command line and directory if it has
    /// no other name than its command. The end itself is logged and counted at once.
    #[arg(long, env = "VARTA_REPLACED_WITHIN", value_name = "DURATION", default_value = "2s",
          value_parser = parse_duration, hide_short_help = true)]
    pub replaced_within: Duration,

    /// How long an agent may be silent that asks for nothing. Last: the fields behind it would be under its heading.
    #[command(flatten, next_help_heading = "Learned timeouts")]
    pub detector: DetectorArgs,
}

impl EngineArgs {
    /// What these options say, with the tables of the file. `is_only_plain` when nothing vouches for any
    /// agent.
    ///
    /// # Errors
    ///
    /// See [`DetectorArgs::policy`]; and what [`Config::check`](crate::config::Config::check) finds besides.
    pub fn policy(self, tables: EngineTables, is_only_plain: bool) -> Result<Policy, Error> {
        let mut faults = OptionFaults::default();
        let policy = Policy {
            stall_after: self.stall_after,
            arrival: faults.value_or(self.detector.policy(), ArrivalPolicy::default),
            no_progress_after: self.no_progress_after,
            forget_after: self.forget_after,
            replaced_within: self.replaced_within,
            max_agents: self.max_agents,
            max_agents_per_source: self.max_agents_per_source,
            max_plain_agents: max_plain_agents(self.max_agents, is_only_plain),
            longest_silence: self.longest_silence,
            mass_silence_min_agents: Policy::MASS_SILENCE_MIN_AGENTS,
            looks_per_second: Policy::LOOKS_PER_SECOND,
            rules: tables.rules,
            expected: tables.expected,
            jobs: tables.jobs,
            // Without a zone of the host that is known, declared jobs have times of UTC; the tables say so themselves.
            time_zone: TimeZone::of_host().unwrap_or_else(|_| TimeZone::utc()),
            max_beat_rate: self.max_beat_rate,
            max_total_rate: self.max_total_rate,
        };
        faults.finish(policy, check_policy)
    }
}

/// The number of agents over plaintext UDP: what anybody can make up leaves room for those who prove who they are,
/// if any can.
pub(crate) const fn max_plain_agents(max_agents: usize, is_only_plain: bool) -> usize {
    if is_only_plain { max_agents } else { max_agents / 4 * 3 }
}

/// The tables of the file that the tracker goes by.
#[derive(Clone, Debug, Default)]
pub struct EngineTables {
    /// What holds for agents by their names.
    pub rules: Rules,
    /// The agents that are to come.
    pub expected: ExpectedAgents,
    /// The jobs that are to run again and again.
    pub jobs: Jobs,
}

impl EngineTables {
    /// What they are.
    pub(crate) fn definitions() -> [TableDefinition; 3] {
        [Rules::definition(), ExpectedAgents::definition(), Jobs::definition()]
    }

    /// Reads the value of a key, if the key names one of these tables. Whether it does.
    pub(crate) fn read(&mut self, key: &TomlKey<'_>, value: &Value<'_>, faults: &mut ParseErrors) -> bool {
        self.rules.read(key, value, faults)
            || self.expected.read(key, value, faults)
            || self.jobs.read(key, value, faults)
    }
}

/// What may be given as an exit status that is no failure.
const EXITS: &[KeyKind] = &[KeyKind::Number(0, 255), KeyKind::AnyText];

/// The states of agents that are kept for a time.
const FORGET_KEYS: [TableKey; 3] = [
    TableKey::optional("stalled", KeyKind::ANY_DURATION, "While it is stalled"),
    TableKey::optional("down", KeyKind::ANY_DURATION, "While it is down"),
    TableKey::optional("gone", KeyKind::ANY_DURATION, "While it is gone"),
];

/// The keys of a rule.
const RULE_KEYS: [TableKey; 7] = [
    TableKey::required(
        "name",
        KeyKind::Text(Glob::MAX_LEN),
        "Pattern of the agents' names: `*` matches any characters or none, `?` matches one",
    ),
    TableKey::optional("stall-after", KeyKind::ANY_DURATION, "Silence after which its agents are stalled"),
    TableKey::optional(
        "success-exit",
        KeyKind::List(&KeyKind::AnyOf(EXITS)),
        "Exit statuses and signals with which its agents end without being down, besides 0",
    ),
    TableKey::optional(
        "replaced-within",
        KeyKind::Duration(Duration::ZERO, MAX_REPLACED_WITHIN),
        "How long after the end of a process another may take its place without an alarm",
    ),
    TableKey::optional(
        "forget-after",
        KeyKind::AnyOf(&[KeyKind::ANY_DURATION, KeyKind::Table(&FORGET_KEYS)]),
        "How long its agents are kept after their last beats: for all states, or by state",
    ),
    TableKey::optional(
        "progress",
        KeyKind::OneOf(|| PROGRESS.to_vec()),
        "Counter of its agents that must move: the payload of their beats, or none whatever they say",
    ),
    TableKey::optional(
        "no-progress-after",
        KeyKind::ANY_DURATION,
        "Time after which its agents are stalled whose counter stands",
    ),
];

/// The counters that a rule can name.
const PROGRESS: [&str; 2] = ["payload", "none"];

impl ReadTables for Rules {
    const NAME: &str = "rule";
    const ABOUT: &str =
        "Settings for agents by their names. Only the first rule that matches a name applies to it";
    const KEYS: &[TableKey] = &RULE_KEYS;

    fn add(&mut self, table: &Table<'_, '_>) -> Result<(), ParseError> {
        let [name, stall_after, success_exit, replaced_within, forget_after, counter, no_progress_after] =
            table.values(&RULE_KEYS)?;
        let (place, name) = table.name(name)?;
        let name = Glob::parse(name).map_err(|error| at(place, error))?;
        let stall_after = stall_after.map(|value| duration("stall-after", value)).transpose()?;
        let success_exit = success_exit.map(read_success_exit).transpose()?;
        let replaced_within = replaced_within.map(|value| grace("replaced-within", value)).transpose()?;
        let forget_after = forget_after.map(read_forget_after).transpose()?.unwrap_or_default();
        let is_payload = counter.map(read_counter).transpose()?;
        let after = no_progress_after.map(|value| duration("no-progress-after", value)).transpose()?;
        let progress = ProgressRule { is_payload, after };
        let rule =
            Rule { stall_after, success_exit, replaced_within, forget_after, progress, ..Rule::of(name) };
        Rules::add(self, rule).map_err(|error| at(place, error))
    }
}

/// A list of exit statuses and names of signals, as `[0, 30, "SIGTERM"]`.
fn read_success_exit(value: &Value<'_>) -> Result<SuccessExit, ParseError> {
    const KEY: &str = "success-exit";
    let wrong = |place, found| at(place, format!("{KEY}: {}", wrong_type(found, "a list is")));
    let DeValue::Array(items) = value.get_ref() else { return Err(wrong(value, value.get_ref())) };
    let mut set = SuccessExit::NONE;
    for item in items.iter() {
        let end = match item.get_ref() {
            DeValue::Integer(number) => Cow::Owned(decimal(number).unwrap_or_default()),
            DeValue::String(name) => Cow::Borrowed(&**name),
            other => {
                let fault = wrong_type(other, "an exit status or the name of a signal is");
                return Err(at(item, format!("{KEY}: {fault}")));
            }
        };
        set.add(end.parse().map_err(|fault| at(item, format!("{KEY}: {fault}")))?);
    }
    Ok(set)
}

/// A duration for all states, or a table of durations by state.
fn read_forget_after(value: &Value<'_>) -> Result<ForgetAfter, ParseError> {
    const KEY: &str = "forget-after";
    let DeValue::Table(states) = value.get_ref() else { return duration(KEY, value).map(ForgetAfter::all) };
    let mut kept = ForgetAfter::default();
    for (state, value) in states {
        let state: &str = state.get_ref();
        let place = match FORGET_KEYS.iter().position(|key| key.name == state) {
            Some(0) => &mut kept.stalled,
            Some(1) => &mut kept.down,
            Some(2) => &mut kept.gone,
            _ => {
                let fault = format!(
                    "{KEY}: `{}`: an agent is kept for a time while it is `stalled`, `down` or `gone`",
                    state.escape_debug()
                );
                return Err(at(value, fault));
            }
        };
        *place = Some(duration(KEY, value)?);
    }
    Ok(kept)
}

/// Whether the payload is a counter that must move.
fn read_counter(value: &Value<'_>) -> Result<bool, ParseError> {
    const KEY: &str = "progress";
    match value.get_ref() {
        DeValue::String(counter) if counter == PROGRESS[0] => Ok(true),
        DeValue::String(counter) if counter == PROGRESS[1] => Ok(false),
        DeValue::String(counter) => {
            let fault = format!("{KEY}: `{}` is neither `payload` nor `none`", counter.escape_debug());
            Err(at(value, fault))
        }
        other => Err(at(value, format!("{KEY}: {}", wrong_type(other, "`payload` or `none` is")))),
    }
}

/// The keys of an expected agent.
const EXPECTED_KEYS: [TableKey; 2] = [
    TableKey::required("name", KeyKind::Text(AgentName::MAX_LEN), "Name of the agent"),
    TableKey::optional("grace", KeyKind::ANY_DURATION, "Longest time until its first beat").or("1m"),
];

impl ReadTables for ExpectedAgents {
    const NAME: &str = "expected";
    const ABOUT: &str = "An agent whose absence is reported";
    const KEYS: &[TableKey] = &EXPECTED_KEYS;

    fn add(&mut self, table: &Table<'_, '_>) -> Result<(), ParseError> {
        let [name, grace] = table.values(&EXPECTED_KEYS)?;
        let (place, name) = table.name(name)?;
        let mut agent = Expected::named(name).map_err(|error| at(place, error))?;
        if let Some(value) = grace {
            agent.grace = duration("grace", value)?;
        }
        ExpectedAgents::add(self, agent).map_err(|error| at(place, error))
    }
}

/// Checks the ranges of the tracker's policy.
pub(crate) fn check_policy(policy: &Policy) -> Result<(), Error> {
    let mut faults = OptionFaults::default();
    let Policy { stall_after, forget_after, max_agents, .. } = *policy;
    if stall_after < MIN_STALL_AFTER || stall_after > MAX_DURATION {
        faults.add("--stall-after", format!("{stall_after:?} is not between 10ms and 366 days"));
    } else if forget_after < stall_after || forget_after > MAX_DURATION {
        let fault = format!("{forget_after:?} is not between --stall-after and 366 days");
        faults.add("--forget-after", fault);
    }
    if policy.no_progress_after < MIN_STALL_AFTER || policy.no_progress_after > MAX_DURATION {
        let fault = format!("{:?} is not between 10ms and 366 days", policy.no_progress_after);
        faults.add("--no-progress-after", fault);
    }
    if policy.replaced_within > MAX_REPLACED_WITHIN {
        faults.add("--replaced-within", format!("{:?} is more than 10 minutes", policy.replaced_within));
    }
    faults.value(check_detector(&policy.arrival, forget_after));
    if max_agents == 0 {
        faults.add("--max-agents", "0 leaves no room for any agent");
    } else {
        faults.value(check_agents(&policy.rules, &policy.expected, policy));
    }
    faults.into_result()
}

/// Checks the settings of single agents against those for all.
pub(crate) fn check_agents(rules: &Rules, expected: &ExpectedAgents, policy: &Policy) -> Result<(), Error> {
    let mut faults = OptionFaults::default();
    let Policy { forget_after, max_agents, .. } = *policy;
    for Rule { name, stall_after, forget_after: by_rule, .. } in rules.iter() {
        let (stall_after, name) = (stall_after.unwrap_or(policy.stall_after), name.as_str());
        let fault = match by_rule.stalled {
            Some(kept) if kept < stall_after => {
                format!("{kept:?} of the rule for `{name}` is less than its {stall_after:?} of silence")
            }
            None if forget_after < stall_after => {
                format!("{forget_after:?} is less than the {stall_after:?} that the rule for `{name}` gives")
            }
            Some(_) | None => continue,
        };
        faults.add("--forget-after", fault);
    }
    let expected = expected.iter().len();
    if expected > max_agents {
        let fault = format!("{max_agents} leaves no room for the {expected} agents that are expected");
        faults.add("--max-agents", fault);
    }
    faults.into_result()
}
