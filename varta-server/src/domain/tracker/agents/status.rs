//! The status of an agent, which recovery checks before it acts.

use std::time::Duration;

use crate::domain::process::ProcessId;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The status of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// The verdict on it.
    pub verdict: Verdict,
    /// Its process, of this host and as far as it is known. It may have ended.
    pub process: Option<ProcessId>,
    /// The length of its silence.
    pub silence: Duration,
    /// Whether there was no observer gap for as long as its stall timeout: otherwise its silence may be this
    /// server's own.
    pub is_observed: bool,
}

/// The number of agents with a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameCount {
    /// All that are known, including those that are down or gone.
    pub all: usize,
    /// Those that beat and are not in a critical state.
    pub up: usize,
}

impl std::ops::AddAssign for NameCount {
    fn add_assign(&mut self, more: NameCount) {
        self.all += more.all;
        self.up += more.up;
    }
}
