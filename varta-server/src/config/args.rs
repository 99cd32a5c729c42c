//! The command line, the environment and the configuration file. Converts them into a [`Config`], or reports
//! which option is wrong.
//!
//! The options of the file are inserted as command-line arguments, as far as neither the command line nor the
//! environment sets them. So each option has one definition and one default.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::base::LogFormat;
use crate::base::error::Error;
use crate::base::logging::StagedLevel;
use crate::base::options::{LookUps, OptionFaults};
use crate::config::file::ConfigFile;
use crate::config::origin::{self, Setting};
use crate::config::{Config, Task};
use crate::engine::EngineArgs;
use crate::engine::options::check_policy;
use crate::ingest::{IngestArgs, IngestOptions};
use crate::services::Sections;
use crate::services::exec::ExecTask;

/// Takes heartbeats from processes, reports which of them are silent and why, and exports Prometheus metrics.
///
/// Without arguments the server listens on a Unix socket in the runtime directory and serves metrics on
/// 127.0.0.1:9843. Every option can also be set by the environment variable shown with it, and in the file of
/// --config. The command line takes precedence over the environment, and the environment over the file.
#[derive(Clone, Debug, Parser)]
#[command(name = "varta-server", version = crate::base::version::VERSION_AND_COMMIT, max_term_width = 100, args_override_self = true,
          after_help = AFTER_SHORT_HELP, after_long_help = AFTER_HELP,
          args_conflicts_with_subcommands = true)]
pub struct Args {
    /// The subcommand; without one the server runs.
    #[command(subcommand)]
    pub task: Option<Task>,

    /// TOML file with these options, and with rules for agents
    ///
    /// Its keys are the options of this list without the dashes. Examples: `stall-after = "2s"`, `udp =
    /// ["127.0.0.1:9844"]`. A list on the command line or in the environment replaces the list of the file.
    /// Paths are relative to the working directory of the server, as on the command line. The file may also
    /// have `[[rule]]`, `[[expected]]`, `[[job]]` and `[[pause]]` tables: settings for agents by their names, agents
    /// that the server waits for, once or by a schedule, and agents that raise no alarms for a time.
    #[arg(long, env = "VARTA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Take over from the server that runs with the same control socket
    ///
    /// That server serves until this one has read its configuration and keys; then it hands its sockets and all that
    /// it knows over, and ends. What `varta-server upgrade` starts has this option.
    #[arg(long, env = "VARTA_TAKE_OVER", hide_short_help = true, value_parser = FalseyValueParser::new())]
    pub take_over: bool,

    /// Where agents beat.
    #[command(flatten, next_help_heading = "Sockets and agents' beats")]
    pub ingest: IngestArgs,

    /// What the tracker goes by.
    #[command(flatten, next_help_heading = "Verdicts")]
    pub engine: EngineArgs,

    /// What the capabilities do.
    #[command(flatten)]
    pub services: Sections,

    /// Format of log lines [default: text on a terminal, else json]
    #[arg(long, env = "VARTA_LOG_FORMAT", value_name = "FORMAT", value_enum, help_heading = LOG)]
    pub log_format: Option<LogFormat>,

    /// Level of log lines [default: RUST_LOG, else info]
    ///
    /// off, error, warn, info, debug, trace, or directives such as `info,varta::agent=warn`.
    #[arg(long, env = "VARTA_LOG_LEVEL", value_name = "LEVEL", help_heading = LOG)]
    pub log_level: Option<String>,

    /// The parsed file of `config`.
    #[arg(skip)]
    pub file: Option<ConfigFile>,

    /// What is given for each option, where the task is to show that.
    #[arg(skip)]
    pub(crate) settings: Vec<Setting>,
}

const LOG: &str = "Log";
/// The task that shows the options.
const SHOW: &str = "show";

const AFTER_SHORT_HELP: &str =
    "`varta-server --help` has all options, with their variables of the environment.";

const AFTER_HELP: &str = "\
Durations are written like 500ms, 2s or 1h30m; sizes in bytes like 4096, or like 64M or 64MiB, which
are the same: units are powers of 1024. Log lines go to standard error.
SIGTERM and SIGINT stop the server cleanly. SIGHUP reads key files and the
configuration file again, as `varta-server reload` does.
Exit status: 0 after a clean stop, 1 after a failure, 2 for wrong usage or configuration.";

/// The definition of the command line, which covers the environment and the file as well.
///
/// An empty environment variable counts as unset, which is how a systemd unit or a container file clears one.
pub(crate) fn definition() -> Command {
    without_variables(with_shown_options(Args::command()), |value| value.is_empty())
}

/// Reads a command line that is `exec` and what belongs to it, without the definition of all the rest: to make that
/// takes longer than all that exec does before its command starts. `None` for any other, one that is wrong, and one that
/// asks for help.
#[must_use]
pub fn exec_alone(words: &[OsString]) -> Option<ExecTask> {
    if words.get(1)? != "exec" {
        return None;
    }
    let alone = ExecTask::augment_subcommands(Command::new("varta-server").args_override_self(true));
    let alone = without_variables(alone, |value| value.is_empty());
    ExecTask::from_arg_matches(&alone.try_get_matches_from(words).ok()?).ok()
}

/// Adds the options of the server to the task that shows them. Its help lists only its own.
fn with_shown_options(server: Command) -> Command {
    let options =
        server.get_arguments().filter(|option| option.get_long().is_some_and(|long| long != "help"));
    let options: Vec<_> = options.map(|option| option.clone().hide(option.get_id() != "config")).collect();
    server.mut_subcommand("config", |config| config.mut_subcommand(SHOW, |show| show.args(options)))
}

/// The definition for the summary of `-h`: a line for each option, so without its variable and the values that
/// it may have.
fn in_short(command: Command) -> Command {
    let shortened = |option: Arg| {
        let has_value = option.get_action().takes_values();
        option.hide_env(true).hide_possible_values(has_value)
    };
    command.mut_args(shortened).mut_subcommands(in_short)
}

/// Removes the environment variables whose present value matches `is_one` from a definition.
pub(crate) fn without_variables(command: Command, is_one: fn(&OsStr) -> bool) -> Command {
    let has_one = |option: &Arg| option.get_env().and_then(env::var_os).is_some_and(|value| is_one(&value));
    command
        .mut_args(|option| if has_one(&option) { option.env(None::<&'static str>) } else { option })
        .mut_subcommands(|task| without_variables(task, is_one))
}

impl Args {
    /// Parses the command line, which starts with the program's name, the environment, and the file that they
    /// name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when the command line or the environment is invalid, or when help or the version is
    /// requested; otherwise the fault of the file.
    pub fn read(command_line: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let words: Vec<OsString> = command_line.into_iter().collect();
        let is_short = words.iter().any(|word| word == "-h");
        Self::read_by(if is_short { in_short(definition()) } else { definition() }, words)
    }

    pub(crate) fn read_by(
        definition: Command,
        command_line: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, Error> {
        let (matches, file, settings) = Self::matches(definition, command_line)?;
        Ok(Args { file, settings, ..Args::from_arg_matches(&matches)? })
    }

    /// What the command line, the environment and the file say, the file, and the settings if they are to be shown.
    pub(crate) fn matches(
        definition: Command,
        command_line: impl IntoIterator<Item = OsString>,
    ) -> Result<(ArgMatches, Option<ConfigFile>, Vec<Setting>), Error> {
        let mut words: Vec<OsString> = command_line.into_iter().collect();
        let alone = definition.clone().try_get_matches_from(&words)?;
        let mut matches = alone.clone();
        let mut file = None;
        let (depth, command, given) = innermost(&definition, &alone);
        let is_shown = command.get_name() == SHOW;
        let settings = |file| if is_shown { origin::settings(command, given, file) } else { Vec::new() };
        let settings = if let Ok(Some(path)) = given.try_get_one::<PathBuf>("config") {
            let (mut read, faults) = ConfigFile::read(path, &words, &definition)?;
            let from_file = read.count_effective(|key| is_open(command, given, key));
            let settings = settings(Some(&read));
            // Inserted at the front, behind the names of the program and the subcommand, and before any `--`.
            let behind_names = words.len().min(1 + depth);
            words.splice(behind_names..behind_names, from_file.into_iter().map(OsString::from));
            let with_file = definition.try_get_matches_from(words);
            if let Some(faults) = faults {
                let rest = with_file.ok().and_then(|matches| Args::from_arg_matches(&matches).ok());
                let others = rest.and_then(|args| args.options(Some(&read), LookUps::LeftOut).err());
                return Err(read.with_other_faults(faults, others));
            }
            matches = with_file?;
            file = Some(read);
            settings
        } else {
            // A subcommand without the option is an error here, and reads no file.
            settings(None)
        };
        Ok((matches, file, settings))
    }

    /// Adds the lines of the file to an error about options that the file has set.
    #[must_use]
    pub fn locate(&self, error: Error) -> Error {
        match &self.file {
            Some(file) => file.locate(error),
            None => error,
        }
    }

    /// Checks the options against each other, and reads the files that they name.
    ///
    /// # Errors
    ///
    /// The options whose values are out of range or have no effect, and the files, users, groups and hosts that
    /// cannot be used.
    pub fn into_config(self) -> Result<Config, Error> {
        self.into_config_by(LookUps::Done)
    }

    pub(crate) fn into_config_by(mut self, look_ups: LookUps) -> Result<Config, Error> {
        let Some(file) = self.file.take() else { return self.options(None, look_ups) };
        let mut config = self.options(Some(&file), look_ups).map_err(|error| file.locate(error))?;
        config.file = Some(file);
        Ok(config)
    }

    /// What the options and tables say, checked.
    fn options(self, file: Option<&ConfigFile>, look_ups: LookUps) -> Result<Config, Error> {
        let mut faults = OptionFaults::default();
        let ingest = faults.checked(self.ingest.options(look_ups), IngestOptions::check);
        let tables = file.map(ConfigFile::tables);
        let of_engine = tables.map(|tables| tables.engine.clone()).unwrap_or_default();
        let policy = faults.checked(self.engine.policy(of_engine, ingest.is_only_plain()), check_policy);
        let tables = tables.map(|tables| &tables.services);
        let services = self.services.options(tables, &ingest.sockets, look_ups, &mut faults);
        faults.value(StagedLevel::new(self.log_level.as_deref()));
        faults.into_result()?;
        Ok(Config { ingest, policy, services, file: None })
    }
}

/// The subcommand that is asked for, its arguments, and how many names lead to it; the program itself if none
/// is.
fn innermost<'d>(definition: &'d Command, matches: &'d ArgMatches) -> (usize, &'d Command, &'d ArgMatches) {
    let below =
        matches.subcommand().and_then(|(name, given)| Some((definition.find_subcommand(name)?, given)));
    below.map_or((0, definition, matches), |(command, given)| {
        let (depth, command, given) = innermost(command, given);
        (depth + 1, command, given)
    })
}

/// Whether a command has this option, and neither the command line nor the environment sets it.
fn is_open(command: &Command, given: &ArgMatches, key: &str) -> bool {
    let Some(option) = command.get_arguments().find(|option| option.get_long() == Some(key)) else {
        return false;
    };
    let source = given.value_source(option.get_id().as_str());
    !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}
