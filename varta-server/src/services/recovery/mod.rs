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

mod action_target;
mod audit_fields;
mod budget;
mod command;
mod episode;
mod executor;
mod job;
pub(in crate::services) mod metrics;
mod options;
mod planner;
mod rule;
mod runner;
pub(crate) mod service;
mod table;
mod task;

pub use self::budget::Budget;
pub use self::command::CommandLine;
pub use self::options::{RecoveryArgs, RecoveryOptions, Variable};
pub use self::rule::{Action, BadState, RecoveryRule, Step};
pub use self::table::{RecoveryEntry, RecoveryTables};
