//! By which rules recovery acts, and within which limits.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::limits::{MAX_COMMAND_TIMEOUT, MAX_DURATION};
use crate::base::options::{LookUps, OptionFaults, parse_duration};
use crate::services::audit::AuditOptions;
use crate::services::recovery::action_target::{find_program, search_path};
use crate::services::recovery::budget::Budget;
use crate::services::recovery::command::CommandLine;
use crate::services::recovery::pressure_limits::PressureLimits;
use crate::services::recovery::rule::{Action, RecoveryRule, Step};
use crate::services::recovery::table::{RecoveryEntry, RecoveryTables};

/// What is done about agents that are stalled or down.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RecoveryArgs {
    /// Command to run when an agent is stalled or down
    ///
    /// As in 'systemctl restart {unit}'. The server splits the command into words as a shell does, and runs it
    /// without a shell. It replaces {pid} {name} {unit} {state} {cause} {silence} by the values of the agent,
    /// in any word but the first and those that a shell or another interpreter takes for code; write sh -c
    /// 'restart "$1"' -- {name}. `[[recovery]]` tables of --config define other actions and their agents; they
    /// take precedence over this option.
    #[arg(long, env = "VARTA_RECOVERY_EXEC", value_name = "COMMAND")]
    pub recovery_exec: Option<CommandLine>,

    /// Minimum time between the start of an attempt on an agent and the start of the next
    #[arg(long, env = "VARTA_RECOVERY_DEBOUNCE", value_name = "DURATION", default_value = "1m",
          value_parser = parse_duration, hide_short_help = true)]
    pub recovery_debounce: Duration,

    /// Maximum run time of a command; then its process group gets SIGTERM, and 5s later SIGKILL
    #[arg(long, env = "VARTA_RECOVERY_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = parse_duration, hide_short_help = true)]
    pub recovery_timeout: Duration,

    /// Maximum number of attempts on an agent, until it has been healthy for ten minutes
    #[arg(
        long,
        env = "VARTA_RECOVERY_ATTEMPTS",
        value_name = "N",
        default_value_t = 5,
        hide_short_help = true
    )]
    pub recovery_attempts: u32,

    /// Wait after an attempt without success; doubles each time, up to an hour
    #[arg(long, env = "VARTA_RECOVERY_BACKOFF", value_name = "DURATION", default_value = "30s",
          value_parser = parse_duration, hide_short_help = true)]
    pub recovery_backoff: Duration,

    /// Maximum number of signals and commands for all agents of one name, per duration
    #[arg(
        long,
        env = "VARTA_RECOVERY_GROUP_BUDGET",
        value_name = "ACTIONS/DURATION",
        default_value = "5/10m",
        hide_short_help = true
    )]
    pub recovery_group_budget: Budget,

    /// Maximum number of signals and commands for all agents together, per duration
    #[arg(
        long,
        env = "VARTA_RECOVERY_BUDGET",
        value_name = "ACTIONS/DURATION",
        default_value = "20/10m",
        hide_short_help = true
    )]
    pub recovery_budget: Budget,

    /// Pressure on this host above which recovery waits: on a starved host it would make matters worse
    ///
    /// In percent of the last ten seconds in which all tasks with work waited for memory or I/O, or some task for a CPU.
    /// Agents of other hosts and notifications do not wait.
    #[arg(
        long,
        env = "VARTA_RECOVERY_MAX_PRESSURE",
        value_name = "RESOURCE=PERCENT,...",
        default_value_t = PressureLimits::DEFAULT,
        hide_short_help = true
    )]
    pub recovery_max_pressure: PressureLimits,

    /// Environment variable for commands; may be given more than once
    ///
    /// Commands also get PATH, and the values of the agent as VARTA_..., and no other variables.
    #[arg(long, env = "VARTA_RECOVERY_ENV", value_name = "NAME=VALUE", value_parser = parse_variable,
          hide_short_help = true)]
    pub recovery_env: Vec<Variable>,

    /// Log what recovery would do, and do nothing
    #[arg(long, env = "VARTA_RECOVERY_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub recovery_dry_run: bool,

    /// Run commands also for agents of other hosts, whose identity is not verified; they never get signals
    #[arg(long, env = "VARTA_ALLOW_RECOVERY_FOR_REMOTE", value_parser = FalseyValueParser::new(),
          hide_short_help = true)]
    pub allow_recovery_for_remote: bool,

    /// Take actions even if they cannot be written to --audit-log; otherwise no action is taken then
    #[arg(long, env = "VARTA_RECOVERY_WITHOUT_AUDIT", value_parser = FalseyValueParser::new(),
          hide_short_help = true)]
    pub recovery_without_audit: bool,
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

fn parse_variable(text: &str) -> Result<Variable, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok(Variable { name: name.to_owned(), value: value.to_owned() })
        }
        Some(_) | None => Err("is not NAME=VALUE".to_owned()),
    }
}

impl RecoveryArgs {
    /// The wait of --recovery-exec before its first action, in which a service manager or an operator may
    /// restart the agent.
    const FIRST_WAIT: Duration = Duration::from_secs(1);

    /// What these options say, with the tables of the file; `None` when there is no file.
    ///
    /// # Errors
    ///
    /// The options whose values are out of range or have no effect, and what [`RecoveryOptions::check`] finds
    /// besides.
    pub fn options(
        self,
        tables: Option<&RecoveryTables>,
        audit: Option<&AuditOptions>,
        look_ups: LookUps,
    ) -> Result<RecoveryOptions, Error> {
        let mut faults = OptionFaults::default();
        if self.recovery_timeout.is_zero() || self.recovery_timeout > MAX_COMMAND_TIMEOUT {
            faults.add("--recovery-timeout", "is not between 1ms and 24h");
        }
        if self.recovery_attempts == 0 {
            faults.add("--recovery-attempts", "0 leaves no attempt");
        }
        let times =
            [("--recovery-debounce", self.recovery_debounce), ("--recovery-backoff", self.recovery_backoff)];
        for (option, given) in times {
            if given > MAX_DURATION {
                faults.add(option, format!("{given:?} is more than 366 days"));
            }
        }
        let rules = self.rules(tables.unwrap_or(&RecoveryTables::default()));
        let has_rules = !rules.is_empty() || tables.is_some();
        let needed = "--recovery-exec or a [[recovery]] table";
        faults.add_useless([
            ("--recovery-env", !self.recovery_env.is_empty(), has_rules, needed),
            ("--recovery-dry-run", self.recovery_dry_run, has_rules, needed),
            ("--allow-recovery-for-remote", self.allow_recovery_for_remote, has_rules, needed),
            ("--recovery-without-audit", self.recovery_without_audit, has_rules, needed),
        ]);
        let options = RecoveryOptions {
            rules,
            budget: self.recovery_budget,
            environment: self
                .recovery_env
                .iter()
                .map(|Variable { name, value }| (name.clone(), value.clone()))
                .collect(),
            max_pressure: self.recovery_max_pressure,
            is_dry_run: self.recovery_dry_run,
            allows_remote: self.allow_recovery_for_remote,
            allow_without_audit: self.recovery_without_audit,
            may_get_rules: tables.is_some(),
        };
        faults.finish(options, |options| options.check(audit, look_ups))
    }

    /// The rules of the file with defaults for omitted keys, followed by the rule of --recovery-exec.
    pub(crate) fn rules(&self, tables: &RecoveryTables) -> Vec<RecoveryRule> {
        let simple = self.recovery_exec.as_ref().map(|command| {
            let action = Action::Command(command.clone(), self.recovery_timeout);
            self.rule(&RecoveryEntry::for_all(), vec![Step { wait: Self::FIRST_WAIT, action }])
        });
        let of_file = tables.iter().map(|entry| self.rule(entry, entry.steps(self.recovery_timeout)));
        of_file.chain(simple).collect()
    }

    fn rule(&self, entry: &RecoveryEntry, steps: Vec<Step>) -> RecoveryRule {
        RecoveryRule {
            name: entry.name.clone(),
            labels: entry.labels.clone(),
            states: entry.states.clone(),
            causes: entry.causes.clone(),
            transports: entry.transports.clone(),
            steps,
            debounce: entry.debounce.unwrap_or(self.recovery_debounce),
            backoff: entry.backoff.unwrap_or(self.recovery_backoff),
            attempts: entry.attempts.unwrap_or(self.recovery_attempts),
            budget: entry.budget.unwrap_or(self.recovery_group_budget),
            min_healthy: entry.keep_up,
            give_up_retry: entry.give_up_retry,
            final_exit_statuses: entry.final_exit_statuses.clone(),
        }
    }
}

/// The settings of recovery. By default nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// The first rule that matches a transition applies.
    pub rules: Vec<RecoveryRule>,
    /// The budget of signals and commands over all agents.
    pub budget: Budget,
    /// The environment of commands, in addition to `PATH` and the properties of the agent.
    pub environment: Vec<(String, String)>,
    /// The pressure on this host above which nothing is done about its agents.
    pub max_pressure: PressureLimits,
    /// Whether actions are only logged.
    pub is_dry_run: bool,
    /// Whether commands are run for agents of other hosts.
    pub allows_remote: bool,
    /// Whether actions are carried out without a durable audit record.
    pub allow_without_audit: bool,
    /// Whether a reload may bring rules, as with a configuration file.
    pub may_get_rules: bool,
}

impl RecoveryOptions {
    /// Checks what goes together with the audit log, and that commands are there whose path depends on the
    /// working directory: where the server was started in another than was meant, none of them would ever run.
    ///
    /// # Errors
    ///
    /// The option that would do nothing, and the commands that cannot be run.
    pub fn check(&self, audit: Option<&AuditOptions>, look_ups: LookUps) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        if audit.is_none() && self.allow_without_audit {
            faults.add(
                "--recovery-without-audit",
                "does nothing without --audit-log: where there is none, recovery acts and nothing is recorded; leave it out",
            );
        }
        let is_relative = |program: &str| program.contains('/') && !program.starts_with('/');
        let missing = if look_ups == LookUps::Done { self.programs_not_found() } else { Vec::new() };
        for (_, fault) in missing.into_iter().filter(|(program, _)| is_relative(program)) {
            faults.add("--recovery-exec (or exec of [[recovery]])", fault);
        }
        faults.into_result()
    }

    /// Notes the programs that do not exist.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        for (_, fault) in self.programs_not_found() {
            host.note(format!("recovery: {fault}"));
        }
    }

    /// The programs that do not exist at present, each with its fault.
    pub(crate) fn programs_not_found(&self) -> Vec<(&str, String)> {
        let search = search_path(&self.environment);
        let commands = self.rules.iter().flat_map(|rule| &rule.steps).filter_map(|step| match &step.action {
            Action::Command(command, _) => Some(command.program()),
            Action::Notify | Action::Signal(..) => None,
        });
        let mut missing: Vec<(&str, String)> = commands
            .filter_map(|program| Some((program, find_program(program, &search).err()?.to_string())))
            .collect();
        missing.dedup();
        missing
    }
}

impl Default for RecoveryOptions {
    fn default() -> Self {
        const TWENTY: NonZeroU32 = NonZeroU32::new(20).expect("is not zero");
        RecoveryOptions {
            rules: Vec::new(),
            budget: Budget::new(TWENTY, 600),
            environment: Vec::new(),
            max_pressure: PressureLimits::DEFAULT,
            is_dry_run: false,
            allows_remote: false,
            allow_without_audit: false,
            may_get_rules: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        recovery: RecoveryArgs,
    }

    fn options(line: &[&str]) -> Result<RecoveryOptions, String> {
        let words = std::iter::once("x").chain(line.iter().copied());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.recovery.options(None, None, LookUps::Done).map_err(|error| error.to_string())
    }

    #[test]
    fn one_flag_is_a_rule_for_all_that_are_stalled_or_down() {
        let options = options(&["--recovery-exec", "systemctl restart {unit}", "--recovery-env", "A=b=c"]);
        let options = options.unwrap();
        let [rule] = &options.rules[..] else { panic!("{options:?}") };
        assert!(rule.name.matches("anybody") && rule.states.len() == 2 && rule.causes.is_empty());
        assert_eq!(rule.steps.len(), 1);
        assert_eq!(options.environment, [("A".to_owned(), "b=c".to_owned())]);
        assert!(self::options(&[]).unwrap().rules.is_empty());
    }

    #[test]
    fn a_command_whose_path_is_relative_must_be_there_and_others_may_come_later() {
        let check = |command: &str| {
            let options = options(&["--recovery-exec", command]).unwrap();
            options.check(None, LookUps::Done).map_err(|error| error.to_string())
        };
        // The working directory of the tests is that of the package.
        let fault = check("./no-such-script.sh {pid}").unwrap_err();
        assert!(fault.starts_with("--recovery-exec") && fault.contains("/no-such-script.sh"), "{fault}");
        let fault = check("./Cargo.toml").unwrap_err();
        assert!(fault.contains("is no file that can be run"), "{fault}");
        for command in ["/nowhere/at/all", "no-such-program", "true"] {
            check(command).unwrap();
        }
    }

    #[test]
    fn what_makes_no_sense_or_does_nothing_is_refused_by_name() {
        for (line, fault) in [
            (&["--recovery-exec", "{name} x"][..], "the program"),
            (&["--recovery-dry-run"], "--recovery-dry-run"),
            (&["--recovery-env", "A=b"], "--recovery-env"),
            (&["--recovery-env", "A"], "NAME=VALUE"),
            (&["--recovery-timeout", "0s"], "--recovery-timeout"),
            (&["--recovery-attempts", "0"], "--recovery-attempts"),
            (&["--recovery-backoff", "400days"], "--recovery-backoff"),
            (&["--recovery-budget", "5"], "ACTIONS/DURATION"),
            (&["--recovery-max-pressure", "memory"], "RESOURCE=PERCENT"),
        ] {
            let said = options(line).unwrap_err();
            assert!(said.contains(fault), "{line:?}: {said}");
        }
    }
}
