//! What a process says of an agent that is known by its name alone, and not by a process: a job of cron, a script.

use std::time::Duration;

use varta_proto::control::{AgentName, ReportEvent};

use crate::domain::job::DeclaredJob;

/// A report about a named agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The name of the agent.
    pub name: AgentName,
    /// What has happened.
    pub event: ReportEvent,
    /// The silence after which the agent is to count as stalled.
    pub stall_after: Option<Duration>,
    /// When that is to happen.
    pub declared: Option<DeclaredJob>,
}

impl Report {
    /// A report that asks for no stall timeout.
    #[must_use]
    pub const fn new(name: AgentName, event: ReportEvent) -> Self {
        Report { name, event, stall_after: None, declared: None }
    }
}
