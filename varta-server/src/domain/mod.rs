//! Values and rules for beats, agents, processes and verdicts. Pure: no clock, file, socket, task, option or
//! metric.

pub(crate) mod agent_key;
mod agent_pattern;
pub mod beat;
mod by_value;
pub(crate) mod describe;
mod expected;
mod forget_after;
pub mod job;
pub mod labels;
pub mod outcome;
pub(crate) mod process;
pub mod report;
mod rules;
pub(crate) mod schedule;
pub(crate) mod service_message;
pub mod tracker;

pub(crate) use self::agent_pattern::AgentPattern;
pub use self::expected::{Expected, ExpectedAgents};
pub use self::forget_after::ForgetAfter;
pub use self::job::{Job, Jobs};
pub use self::rules::{ProgressRule, Rule, Rules};
