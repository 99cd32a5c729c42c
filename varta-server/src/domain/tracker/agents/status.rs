//! The status of an agent, which recovery checks before it acts.

use std::collections::BTreeSet;
use std::sync::Arc;
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

/// The agents whose names match a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMatches {
    /// All that are known, but those that are gone.
    pub agents: usize,
    /// Some of their names, each once and at most [`NameMatches::MAX_NAMES`].
    pub names: BTreeSet<Arc<str>>,
}

impl NameMatches {
    /// The most names that are given.
    pub const MAX_NAMES: usize = 5;

    /// Counts an agent.
    pub(in crate::domain::tracker) fn add(&mut self, name: &Arc<str>) {
        self.agents += 1;
        if self.names.len() < Self::MAX_NAMES {
            self.names.insert(Arc::clone(name));
        }
    }
}

impl std::ops::AddAssign for NameMatches {
    fn add_assign(&mut self, more: NameMatches) {
        self.agents += more.agents;
        for name in more.names {
            if self.names.len() < Self::MAX_NAMES {
                self.names.insert(name);
            }
        }
    }
}

impl std::ops::AddAssign for NameCount {
    fn add_assign(&mut self, more: NameCount) {
        self.all += more.all;
        self.up += more.up;
    }
}
