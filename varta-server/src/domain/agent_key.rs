//! By what an agent is looked up wherever something is kept about it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::beat::Origin;
use crate::domain::tracker::{AgentId, Twin};

/// What tells agents apart: origin, pid and twin. An agent may change its name, so that only one that was
/// expected and has not come, of which nothing else is known, goes by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct AgentKey {
    origin: Origin,
    pid: u32,
    twin: Twin,
    /// Of an agent that has not come.
    name: Option<Arc<str>>,
}

impl AgentKey {
    /// The key of an agent, whether it has come or not.
    pub(crate) fn of(agent: &AgentId) -> Self {
        let AgentId { ref name, origin, pid, twin } = *agent;
        if pid == 0 { AgentKey::missing(name) } else { AgentKey { origin, pid, twin, name: None } }
    }

    /// The key of an agent that was expected and has not come.
    pub(crate) fn missing(name: &Arc<str>) -> Self {
        AgentKey { origin: Origin::Local, pid: 0, twin: Twin::FIRST, name: Some(Arc::clone(name)) }
    }

    /// Whether it is the key of an agent that has not come.
    pub(crate) const fn is_missing(&self) -> bool {
        self.name.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_has_come_is_known_whatever_its_name_and_one_that_has_not_by_its_name() {
        let agent = |name: &str, pid| {
            AgentKey::of(&AgentId { name: name.into(), origin: Origin::Local, pid, twin: Twin::FIRST })
        };
        assert_eq!(agent("worker", 7), agent("another", 7));
        assert_ne!(agent("worker", 7), agent("worker", 8));
        assert_ne!(agent("worker", 0), agent("another", 0));
        assert_eq!(agent("worker", 0), AgentKey::missing(&"worker".into()));
        assert_eq!([agent("worker", 0), agent("worker", 7)].map(|key| key.is_missing()), [true, false]);
    }
}
