//! Which agent a test means.

use std::fmt;
use std::time::Duration;

use crate::agent_process::AgentProcess;
use crate::expect::verdict::Verdict;
use crate::log::Transition;
use crate::remote_agent::RemoteAgent;

/// An agent, by its pid or its name.
#[must_use]
pub fn agent(which: impl Into<Agent>) -> Agent {
    which.into()
}

/// Any agent.
#[must_use]
pub fn any_agent() -> Agent {
    Agent::default()
}

/// Which agent is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    pid: Option<u32>,
    name: Option<String>,
    transport: Option<String>,
}

impl From<u32> for Agent {
    fn from(pid: u32) -> Self {
        Agent { pid: Some(pid), ..Agent::default() }
    }
}

impl From<&str> for Agent {
    fn from(name: &str) -> Self {
        Agent { name: Some(name.to_owned()), ..Agent::default() }
    }
}

impl From<&AgentProcess> for Agent {
    fn from(process: &AgentProcess) -> Self {
        process.pid().into()
    }
}

impl From<&RemoteAgent> for Agent {
    fn from(remote: &RemoteAgent) -> Self {
        remote.pid().into()
    }
}

impl Agent {
    /// Only the one with this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Agent { name: Some(name.to_owned()), ..self }
    }

    /// Only the one whose beats arrive by this transport.
    #[must_use]
    pub fn over(self, transport: &str) -> Self {
        Agent { transport: Some(transport.to_owned()), ..self }
    }

    /// It becomes `up`.
    #[must_use]
    pub fn up(self) -> Verdict {
        self.becomes("up")
    }

    /// It becomes `stalled`.
    #[must_use]
    pub fn stalled(self) -> Verdict {
        self.becomes("stalled")
    }

    /// It becomes `down`.
    #[must_use]
    pub fn down(self) -> Verdict {
        self.becomes("down")
    }

    /// It becomes `gone`.
    #[must_use]
    pub fn gone(self) -> Verdict {
        self.becomes("gone")
    }

    /// It becomes `unknown`.
    #[must_use]
    pub fn unknown(self) -> Verdict {
        self.becomes("unknown")
    }

    /// It becomes `to`, for tests that go through a table of verdicts.
    #[must_use]
    pub fn becomes(self, to: &str) -> Verdict {
        Verdict {
            agent: self,
            to: to.to_owned(),
            from: None,
            cause: None,
            may_have_no_look: false,
            status: None,
            silence: Duration::ZERO,
            exit_code: None,
            signal: None,
            takes: Duration::ZERO,
        }
    }

    pub(crate) fn is(&self, change: &Transition) -> bool {
        self.pid.is_none_or(|pid| change.pid == pid)
            && self.name.as_ref().is_none_or(|name| change.agent == *name)
            && self.transport.as_ref().is_none_or(|transport| change.transport == *transport)
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.pid) {
            (Some(name), Some(pid)) => write!(f, "{name}[{pid}]")?,
            (Some(name), None) => f.write_str(name)?,
            (None, Some(pid)) => write!(f, "[{pid}]")?,
            (None, None) => f.write_str("any agent")?,
        }
        match &self.transport {
            Some(transport) => write!(f, " by {transport}"),
            None => Ok(()),
        }
    }
}
