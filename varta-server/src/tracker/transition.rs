//! A change of verdict: all that a sink gets to know, and all that it needs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use super::verdict::{Cause, Verdict};
use crate::beat::Sender;
use crate::time::MonoTime;

/// One change of verdict about one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whom it is about.
    pub agent: AgentId,
    /// The verdict before; `None` when the agent was not known.
    pub from: Option<Verdict>,
    /// The verdict now.
    pub to: Verdict,
    /// Why.
    pub cause: Cause,
    /// When it was concluded.
    pub at: MonoTime,
    /// How long the agent had been silent: from its last beat to the beat that ended the silence, or to the
    /// conclusion. Zero for a first beat.
    pub silence: Duration,
    /// The last thing that the agent said, the beat that caused the change included.
    pub last: LastWord,
    /// From the moment at which this could first have been known to the moment at which it was; `None` where a beat
    /// brought it, which tells no such moment.
    pub detection_latency: Option<Duration>,
}

/// An agent as people and metrics know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentId {
    /// The name that groups an agent's incarnations. Shared: thousands of workers have the same one.
    pub name: Arc<str>,
    /// Who beats.
    pub sender: Sender,
}

/// `name[pid]`, as in system logs.
impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name.escape_debug(), self.sender.pid())
    }
}

/// The last thing that an agent said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWord {
    /// The status it reported.
    pub status: Status,
    /// The application's own number.
    pub payload: u32,
    /// Whether it was the terminal frame of a panic hook, with no beat after it.
    pub terminal: bool,
    /// How many beats were accepted from this incarnation.
    pub beats: u64,
}
