//! Recovery: acts on agents in bad states. It is the dangerous part, so it is put together of few things, each of which
//! can be looked at by itself.
//!
//! - `rule`: whose verdicts are acted on and how, as an operator wrote it; `command` and `budget` are parts of that.
//! - `planner`: what is to be done about whom, and when. It is pure, and keeps a `case` for each.
//! - `desk`: the task that has the planner. It takes changes of verdict as any sink does.
//! - `doing`: does one job, as `deed` says how; `account` is what is told of it. In the moment of acting it asks the kernel and the tracker whether the agent is still the one
//!   that fell silent, and still silent.
//! - `trail`: what is done is written down, and is on the disk, before it is done.
//! - `runner`: runs one command, and leaves nothing of it behind.

mod account;
mod budget;
mod case;
mod command;
mod deed;
mod desk;
mod doing;
mod job;
mod metrics;
mod planner;
mod rule;
mod runner;
mod trail;

use std::num::NonZeroU32;

pub use self::budget::Budget;
pub use self::command::CommandLine;
use self::deed::{find_program, search_path};
pub(crate) use self::desk::{Desk, NewRules};
pub(crate) use self::doing::Doer;
pub(crate) use self::metrics::RecoveryMetrics;
pub use self::rule::{Action, BadState, RecoveryRule, Step};
pub(crate) use self::trail::Trail;

/// What is done about agents in bad states. By default nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// The first that fits a verdict counts.
    pub rules: Vec<RecoveryRule>,
    /// How many signals and commands in all.
    pub budget: Budget,
    /// The environment of commands, beside `PATH` and what is known of the agent.
    pub environment: Vec<(String, String)>,
    /// Whether it is only said what would be done.
    pub is_dry_run: bool,
    /// Whether commands are run for agents of other hosts.
    pub allows_remote: bool,
    /// Whether something is done that could not be written down before.
    pub goes_on_without_trail: bool,
}

impl RecoveryOptions {
    /// The programs of commands that are not there at the moment, and what is to be said of each.
    pub(crate) fn programs_not_found(&self) -> Vec<(&str, String)> {
        let search = search_path(&self.environment);
        let commands = self.rules.iter().flat_map(|rule| &rule.steps).filter_map(|step| match &step.action {
            Action::Command(command, _) => Some(command.program()),
            Action::Notify | Action::Signal(_) => None,
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
            is_dry_run: false,
            allows_remote: false,
            goes_on_without_trail: false,
        }
    }
}
