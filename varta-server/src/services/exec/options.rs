//! What `exec` is to do: as it is said, and checked.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use varta_proto::control::{AgentName, Label, LabelError, LabelSet, NameError};

use crate::base::error::Error;
use crate::base::limits::{MAX_COMMAND_TIMEOUT, MAX_DURATION, MIN_STALL_AFTER};
use crate::base::options::parse_duration;
use crate::base::time_zone::TimeZone;
use crate::domain::job::DeclaredJob;
use crate::domain::schedule::Schedule;

/// The silence that is asked for by default, in intervals.
pub(super) const INTERVALS: u32 = 3;
/// The default of `--ready-within`.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The longest interval between beats: the protocol has milliseconds in 32 bits, some 49 days, for the silence.
const MAX_EVERY: Duration = Duration::from_secs(86_400);
/// The longest silence that can be asked for.
const MAX_STALL_AFTER: Duration = Duration::from_secs(49 * 86_400);

/// What to run, and by what signs it is well.
#[derive(Clone, Debug, Args)]
pub struct ExecArgs {
    /// Name of the agent [default: the base name of COMMAND]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub name: Option<AgentName>,

    /// Label of the agent; may repeat
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<String>,

    /// Path of the server's socket, if it is not a usual one
    #[arg(long, env = "VARTA_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// What proves that the command is well: notify, alive, output or check=CMD [default: notify]
    ///
    /// `notify`: it sends keep-alives by sd_notify(3), for which it is given `NOTIFY_SOCKET` and, as `WATCHDOG_USEC`,
    /// --stall-after. `alive`: it exists and is not stopped. `output`: it has printed something; a terminal is seen by
    /// way of another, which the command gets in its place. `check=CMD`: CMD, which is split into words as a shell does and run without one, ends with
    /// status 0; it is run every --every and ended when it takes longer, and another status makes the agent critical at
    /// once. The option may repeat: then a beat is sent when each of them has said so since the last beat. The start
    /// of the command is the first beat.
    #[arg(long = "beat", value_name = "SOURCE", value_parser = parse_source)]
    pub sources: Vec<BeatSource>,

    /// Shortest time between two beats, and between two checks
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    pub every: Duration,

    /// Silence after which the agent is stalled [default: three times --every]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub stall_after: Option<Duration>,

    /// Time within which the first keep-alive by sd_notify has to come [default: 30s]
    ///
    /// Else the agent is stalled, and a line on standard error says that another source of --beat is to be chosen.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub ready_within: Option<Duration>,

    /// Give the command the path of the server's socket, as VARTA_SOCKET
    ///
    /// It may then beat by itself, as an agent of its own.
    #[arg(long)]
    pub pass_socket: bool,

    /// Keep nothing of what the command prints
    ///
    /// Without this option its last 10 kB stay in memory, and their last line is in the message about its failure. With
    /// it the command writes to standard output and standard error as they are, unless `--beat output` is given.
    #[arg(long)]
    pub no_output: bool,

    /// Exit statuses besides 0 with which the command has done well, as 3,75
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub success_exit_codes: Vec<u8>,

    /// When to start the command again: no, on-failure or always
    ///
    /// A second after the first end, and twice as long after each further one, up to a minute; after it has run for
    /// a minute, a second again. This is for hosts without a service manager, which does it better: it does not know
    /// exec's own end.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = RestartPolicy::No)]
    pub restart: RestartPolicy,

    /// Time from SIGTERM to SIGKILL for processes that the command leaves behind
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    pub kill_after: Duration,

    /// When the command is to run: an expression of cron, a calendar event of systemd, or a duration
    ///
    /// The agent is a job by it: the server reports when no run has begun in time. It is told so at the start and once a
    /// minute; something else has to start exec at these times.
    #[arg(long, value_name = "SCHEDULE", value_parser = parse_schedule)]
    pub schedule: Option<String>,

    /// Time zone of --schedule, as Europe/Berlin [default: that of the server]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone, requires = "schedule")]
    pub timezone: Option<String>,

    /// How late a run may begin [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "schedule")]
    pub grace: Option<Duration>,

    /// How long the command may run, after which the agent is stalled
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "schedule")]
    pub longest_run: Option<Duration>,

    /// Have it be an alarm that a run begins while another is under way
    #[arg(long, requires = "schedule")]
    pub alarm_on_overlap: bool,

    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

fn parse_name(text: &str) -> Result<AgentName, NameError> {
    AgentName::parse(text)
}

fn parse_label(text: &str) -> Result<String, LabelError> {
    Label::parse(text).map(|_| text.to_owned())
}

fn parse_schedule(text: &str) -> Result<String, String> {
    let checked = Schedule::parse(text, &TimeZone::utc(), |name| TimeZone::named(name).ok());
    checked.map(|schedule| schedule.text().to_owned()).map_err(|error| error.to_string())
}

fn parse_zone(text: &str) -> Result<String, String> {
    TimeZone::named(text).map(|zone| zone.name().to_owned()).map_err(|error| error.to_string())
}

fn parse_source(text: &str) -> Result<BeatSource, String> {
    text.parse()
}

/// What proves that a command is well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BeatSource {
    /// It sends keep-alives by sd_notify.
    Notify,
    /// It exists and is not stopped.
    Alive,
    /// It has printed something.
    Output,
    /// A command says so, whose words these are.
    Check(Vec<String>),
}

impl FromStr for BeatSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "notify" => Ok(BeatSource::Notify),
            None if text == "alive" => Ok(BeatSource::Alive),
            None if text == "output" => Ok(BeatSource::Output),
            Some(("check", command)) => {
                let words = shlex::split(command).ok_or("the check has a quote that is not closed")?;
                match words.first() {
                    Some(program) if !program.is_empty() => Ok(BeatSource::Check(words)),
                    _ => Err("the check names no program, as check='curl -fs http://localhost/'".to_owned()),
                }
            }
            _ => Err("is none of notify, alive, output and check=CMD".to_owned()),
        }
    }
}

impl fmt::Display for BeatSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BeatSource::Notify => "notify",
            BeatSource::Alive => "alive",
            BeatSource::Output => "output",
            BeatSource::Check(_) => "check",
        })
    }
}

/// When a command that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it has failed.
    OnFailure,
    /// However it has ended.
    Always,
}

/// The checked options.
#[derive(Debug)]
pub(super) struct ExecOptions {
    pub(super) name: AgentName,
    /// Each `KEY=VALUE`.
    pub(super) labels: Vec<String>,
    /// `None` for the usual places.
    pub(super) socket: Option<PathBuf>,
    pub(super) has_alive: bool,
    pub(super) has_output: bool,
    /// The words of the check.
    pub(super) check: Option<Vec<String>>,
    /// The time for the first keep-alive by sd_notify, if that is a source.
    pub(super) ready_within: Option<Duration>,
    pub(super) every: Duration,
    pub(super) stall_after: Duration,
    pub(super) pass_socket: bool,
    pub(super) keeps_output: bool,
    pub(super) success_exit_codes: Vec<u8>,
    pub(super) restart: RestartPolicy,
    pub(super) kill_after: Duration,
    /// When it is to run.
    pub(super) declared: Option<DeclaredJob>,
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

impl ExecOptions {
    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense.
    pub(super) fn new(args: &ExecArgs) -> Result<Self, Error> {
        let mut words = args.command.iter().cloned();
        let program = words.next().unwrap_or_default();
        let socket = args.socket.clone();
        if socket.as_deref().is_some_and(|path| path.as_os_str() == "none") {
            return Err(refused(
                "--socket none",
                "a server without a socket cannot be told anything; give its path",
            ));
        }
        if args.every < MIN_STALL_AFTER || args.every > MAX_EVERY {
            let fault = format!("{:?} is not between {MIN_STALL_AFTER:?} and a day", args.every);
            return Err(refused("--every", fault));
        }
        let stall_after = args.stall_after.unwrap_or(args.every * INTERVALS);
        if stall_after <= args.every || stall_after > MAX_STALL_AFTER {
            let fault = format!(
                "{stall_after:?} is not between --every ({:?}), so that a beat can come in time, and 49 days",
                args.every
            );
            return Err(refused("--stall-after", fault));
        }
        if args.kill_after > MAX_COMMAND_TIMEOUT {
            return Err(refused("--kill-after", format!("{:?} is more than a day", args.kill_after)));
        }
        for (option, span) in [("--grace", args.grace), ("--longest-run", args.longest_run)] {
            if let Some(span) = span.filter(|span| *span < MIN_STALL_AFTER || *span > MAX_DURATION) {
                return Err(refused(
                    option,
                    format!("{span:?} is not between {MIN_STALL_AFTER:?} and 366 days"),
                ));
            }
        }
        let mut labels = LabelSet::new();
        for text in &args.labels {
            let pushed = Label::parse(text).map_err(|error| error.to_string());
            let pushed = pushed.and_then(|label| labels.push(label).map_err(|error| error.to_string()));
            pushed.map_err(|fault| refused("--label", format!("{text:?}: {fault}")))?;
        }
        let checks: Vec<_> = args.sources.iter().filter_map(check_of).collect();
        if checks.len() > 1 {
            return Err(refused("--beat", "there is more than one check; have one command do both"));
        }
        let has = |source: &BeatSource| args.sources.contains(source);
        let has_notify = args.sources.is_empty() || has(&BeatSource::Notify);
        let ready_within = args.ready_within.unwrap_or(READY_WITHIN);
        if ready_within > MAX_EVERY {
            return Err(refused("--ready-within", format!("{ready_within:?} is more than a day")));
        }
        if !has_notify && args.ready_within.is_some() {
            return Err(refused("--ready-within", "has no effect without --beat notify"));
        }
        Ok(ExecOptions {
            name: args.name.unwrap_or_else(|| name_of(Path::new(&program))),
            labels: args.labels.clone(),
            socket,
            has_alive: has(&BeatSource::Alive),
            has_output: has(&BeatSource::Output),
            check: checks.first().cloned().cloned(),
            ready_within: has_notify.then_some(ready_within),
            every: args.every,
            stall_after,
            pass_socket: args.pass_socket,
            keeps_output: !args.no_output,
            success_exit_codes: args.success_exit_codes.clone(),
            restart: args.restart,
            kill_after: args.kill_after,
            declared: args.schedule.as_deref().map(|schedule| DeclaredJob {
                schedule: schedule.into(),
                timezone: args.timezone.as_deref().map(Into::into),
                grace: args.grace,
                longest_run: args.longest_run,
                alarm_on_overlap: args.alarm_on_overlap,
            }),
            program,
            arguments: words.collect(),
        })
    }
}

fn check_of(source: &BeatSource) -> Option<&Vec<String>> {
    match source {
        BeatSource::Check(words) => Some(words),
        BeatSource::Notify | BeatSource::Alive | BeatSource::Output => None,
    }
}

fn refused(option: &'static str, fault: impl Into<String>) -> Error {
    Error::Option { option, fault: fault.into() }
}

/// The base name of a program, as far as names of agents have room for it; other characters become `-`.
fn name_of(program: &Path) -> AgentName {
    let base = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-:@".contains(c) { c } else { '-' };
    let name: String = base.chars().map(allowed).take(AgentName::MAX_LEN).collect();
    AgentName::parse(&name)
        .unwrap_or_else(|_| AgentName::parse("command").expect("its characters are allowed"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Task;
    use crate::config::args::Args as AllArgs;
    use crate::services;
    use crate::services::exec::ExecTask;

    fn options(words: &[&str]) -> Result<ExecOptions, String> {
        let words = ["varta-server", "exec"].iter().chain(words).chain(&["--", "/usr/bin/größe", "-x"]);
        match AllArgs::try_parse_from(words).unwrap().task {
            Some(Task::Service(services::Task::Exec(ExecTask::Exec(args)))) => {
                ExecOptions::new(&args).map_err(|error| error.to_string())
            }
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let options = options(&["--beat", "alive"]).unwrap();
        assert_eq!(options.name.as_str(), "gr--e");
        assert_eq!((options.program.to_str(), options.arguments.len()), (Some("/usr/bin/größe"), 1));
        assert_eq!(options.stall_after, Duration::from_secs(30));
        assert!(options.has_alive && !options.has_output && options.keeps_output);
        assert_eq!((options.restart, options.check, options.ready_within), (RestartPolicy::No, None, None));
        let silent = self::options(&[]).unwrap();
        assert!(!silent.has_alive && silent.ready_within == Some(READY_WITHIN));
        assert_eq!(name_of(Path::new("")).as_str(), "command");
        assert_eq!(name_of(Path::new(&"p".repeat(200))).as_str().len(), AgentName::MAX_LEN);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_the_name_of_its_option() {
        for (words, said) in [
            (&["--every", "1ms"][..], "--every: 1ms"),
            (&["--every", "2d"], "--every"),
            (&["--stall-after", "10s"], "--stall-after: 10s is not between --every (10s)"),
            (&["--stall-after", "50d"], "--stall-after"),
            (&["--kill-after", "2d"], "--kill-after"),
            (&["--socket", "none"], "--socket none"),
            (&["--ready-within", "1s"], "--ready-within: has no effect without --beat notify"),
            (&["--beat", "notify", "--ready-within", "2d"], "--ready-within: 172800s"),
            (&["--label", "a=1", "--label", "a=2"], "--label: \"a=2\""),
            (&["--beat", "check=a", "--beat", "check=b"], "--beat: there is more than one check"),
        ] {
            let words: Vec<_> = ["--beat", "alive"].iter().chain(words).copied().collect();
            let fault = options(&words).unwrap_err();
            assert!(fault.starts_with(said), "{words:?}: {fault}");
        }
    }

    #[test]
    fn a_check_is_split_into_words_as_a_shell_does() {
        let check = options(&["--beat", "check=test -e '/run/a b'"]).unwrap().check;
        assert_eq!(check.unwrap(), ["test", "-e", "/run/a b"]);
    }
}
