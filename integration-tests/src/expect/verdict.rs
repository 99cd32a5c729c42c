//! A change of verdict that a test waits for.

use std::fmt;
use std::time::Duration;

use crate::expect::Expectation;
use crate::expect::agent::Agent;
use crate::log::{Line, Log, Transition, transitions};
use crate::retry::LIMIT;
use crate::server::Server;

/// A change of verdict: the first in the log that has all that is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub(super) agent: Agent,
    pub(super) to: String,
    pub(super) from: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) may_have_no_look: bool,
    pub(super) status: Option<String>,
    pub(super) silence: Duration,
    pub(super) exit_code: Option<u64>,
    pub(super) signal: Option<u64>,
    pub(super) takes: Duration,
}

impl Verdict {
    /// The cause of the change.
    #[must_use]
    pub fn because(self, cause: &str) -> Self {
        Verdict { cause: Some(cause.to_owned()), ..self }
    }

    /// The cause that a look at the process shows. That the look [came too late](Transition::has_no_look)
    /// counts as well, for tests that are about something else.
    #[must_use]
    pub fn seen_as(self, cause: &str) -> Self {
        Verdict { may_have_no_look: true, ..self.because(cause) }
    }

    /// The verdict before; `none` for an agent that was not known.
    #[must_use]
    pub fn from(self, from: &str) -> Self {
        Verdict { from: Some(from.to_owned()), ..self }
    }

    /// The status that the agent reported last.
    #[must_use]
    pub fn with_status(self, status: &str) -> Self {
        Verdict { status: Some(status.to_owned()), ..self }
    }

    /// The agent has been silent for this time at least.
    #[must_use]
    pub fn after_silence(self, silence: Duration) -> Self {
        Verdict { silence, ..self }
    }

    /// The exit status of its process.
    #[must_use]
    pub fn exit_code(self, code: u64) -> Self {
        Verdict { exit_code: Some(code), ..self }
    }

    /// The signal that killed its process.
    #[must_use]
    pub fn signal(self, signal: u64) -> Self {
        Verdict { signal: Some(signal), ..self }
    }

    /// How long the change takes by design, such as a stall-after. The expectation is given up when [`LIMIT`]
    /// more than this has passed since [`Server::expect`] was called: a limit that no healthy run comes near,
    /// however busy the machine is, and no assertion of speed. Without it a change is one that comes at once.
    #[must_use]
    pub fn within(self, takes: Duration) -> Self {
        Verdict { takes, ..self }
    }

    fn is(&self, change: &Transition) -> bool {
        let equals = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|text| text == found);
        self.agent.is(change)
            && change.to == self.to
            && equals(&self.from, &change.from)
            && (equals(&self.cause, &change.cause) || (self.may_have_no_look && change.has_no_look()))
            && equals(&self.status, &change.status)
            && u128::from(change.silence_ms) >= self.silence.as_millis()
            && (self.exit_code.is_none() || change.exit_code == self.exit_code)
            && (self.signal.is_none() || change.signal == self.signal)
    }

    pub(super) fn wait_in(&self, log: &Log, limit: Duration) -> Result<Transition, String> {
        log.wait_for(
            limit,
            |lines| transitions(lines).find(|change| self.is(change)).cloned(),
            |lines| format!("not within {limit:?}: {self}\n{}", story(lines, &self.agent)),
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} becomes {}", self.agent, self.to)?;
        let words = [(" from ", &self.from), (" because ", &self.cause), (" with status ", &self.status)];
        for (word, value) in words {
            if let Some(value) = value {
                write!(f, "{word}{value}")?;
            }
        }
        if !self.silence.is_zero() {
            write!(f, " after a silence of {:?} at least", self.silence)?;
        }
        for (name, value) in [("exit code", self.exit_code), ("signal", self.signal)] {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        Ok(())
    }
}

impl Expectation for Verdict {
    type Found = Transition;

    fn wait(self, server: &Server) -> Result<Transition, String> {
        self.wait_in(server.log(), self.takes + LIMIT)
    }
}

/// All changes of verdict in the order in which they were seen, with a mark at those of one agent.
pub(crate) fn story(lines: &[Line], agent: &Agent) -> String {
    let changes: Vec<_> = transitions(lines)
        .map(|change| format!("{} {change}", if agent.is(change) { '>' } else { ' ' }))
        .collect();
    if changes.is_empty() {
        return "no change of verdict was seen".to_owned();
    }
    format!("{} changes of verdict were seen, in this order:\n{}", changes.len(), changes.join("\n"))
}
