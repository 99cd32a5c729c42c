//! Recovery: acts on agents in unhealthy states. It can do harm, so it consists of small parts that are
//! reviewed one by one.
//!
//! - `rule`: which verdicts are acted on and how, as configured; `command` and `budget` are parts of it, and
//!   `interpreter` refuses commands that would run what an agent says.
//! - `planner`: decides which action is due for which agent. It is pure, and keeps an `episode` for each
//!   agent.
//! - `task`: drives the planner with transitions, outcomes and time.
//! - `executor`: executes one job, whose `action_target` it verifies: right before an action it asks the
//!   kernel and the tracker whether the agent is still the same one, still unhealthy, and not `held` by somebody.
//!   `audit_fields` describes the job.
//! - `journal`: the latest actions and refusals, for readers. `kept`: what outlives the server.
//! - The audit writer makes a record durable before its action is carried out.
//! - `signal_target`: whom a signal reaches, and that these are the agent's own.
//! - `runner`: runs one command, and ends every process that it started.

mod action_target;
mod audit_fields;
mod budget;
mod command;
mod episode;
mod executor;
mod held;
mod interpreter;
mod job;
mod journal;
mod kept;
pub(in crate::services) mod metrics;
mod options;
mod planner;
mod pressure_limits;
mod rule;
mod runner;
pub(crate) mod service;
mod signal_target;
mod table;
mod task;

pub(crate) use self::action_target::is_variable_of_commands;
pub use self::budget::Budget;
pub use self::command::CommandLine;
pub(crate) use self::journal::{Entry, Journal};
pub use self::options::{RecoveryArgs, RecoveryOptions, Variable};
pub use self::pressure_limits::PressureLimits;
pub use self::rule::{Action, RecoveryRule, SignalScope, Step, UnhealthyState};
pub use self::table::{RecoveryEntry, RecoveryTables};
