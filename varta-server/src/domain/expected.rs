//! Expected agents: names in the configuration, each of which raises an alert if its first beat does not come
//! in time.

use std::collections::HashSet;
use std::time::Duration;

use varta_proto::control::AgentName;

use crate::base::EntryError;
use crate::base::limits::check_duration;

/// An agent that the configuration expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The agent's name.
    pub name: AgentName,
    /// The time that its first beat may take after the start of the server.
    pub grace: Duration,
}

impl Expected {
    /// The grace of an agent for which no other is configured.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);

    /// An agent of this name, with the default grace.
    ///
    /// # Errors
    ///
    /// [`EntryError::NotAName`] when no agent can have that name.
    pub fn named(name: &str) -> Result<Self, EntryError> {
        let name = AgentName::parse(name)
            .map_err(|fault| EntryError::NotAName { name: name.escape_default().to_string(), fault })?;
        Ok(Expected { name, grace: Self::DEFAULT_GRACE })
    }
}

/// The expected agents, each name once.
///
/// ```
/// use varta_server::config::{Expected, ExpectedAgents};
///
/// let mut expected = ExpectedAgents::default();
/// expected.add(Expected::named("billing")?)?;
/// assert!(expected.add(Expected::named("billing")?).is_err());
/// assert_eq!(expected.iter().len(), 1);
/// # Ok::<(), varta_server::config::EntryError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedAgents {
    /// In the order in which they were added.
    agents: Vec<Expected>,
    names: HashSet<AgentName>,
}

impl ExpectedAgents {
    /// The maximum number of expected agents: more than people write by hand, and few compared to a tracker's
    /// capacity.
    pub const MAX_EXPECTED: usize = 10_000;

    /// Adds an agent.
    ///
    /// # Errors
    ///
    /// When there are too many agents, when the name is already among them, or when the grace is not between
    /// [10 ms](crate::base::limits::MIN_STALL_AFTER) and
    /// [366 days](crate::base::limits::MAX_DURATION). Nothing changes then.
    pub fn add(&mut self, agent: Expected) -> Result<(), EntryError> {
        check_duration("grace", agent.grace)?;
        if self.agents.len() >= Self::MAX_EXPECTED {
            return Err(EntryError::TooMany { most: Self::MAX_EXPECTED });
        }
        if !self.names.insert(agent.name) {
            return Err(EntryError::NameTwice { name: agent.name.to_string() });
        }
        self.agents.push(agent);
        Ok(())
    }

    /// Whether no agent is expected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// Every expected agent, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Expected> {
        self.agents.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_expected_once_and_must_be_one_that_an_agent_can_have() {
        let mut expected = ExpectedAgents::default();
        assert!(expected.is_empty());
        expected.add(Expected::named("billing").unwrap()).unwrap();
        let twice = expected.add(Expected::named("billing").unwrap());
        assert_eq!(twice, Err(EntryError::NameTwice { name: "billing".to_owned() }));
        let error = Expected::named("two words").unwrap_err().to_string();
        assert!(error.starts_with("name: `two words`: "), "{error}");
        assert!(Expected::named("").is_err());
        assert_eq!(expected.iter().len(), 1);
    }

    #[test]
    fn a_grace_that_makes_no_sense_and_one_agent_too_many_are_refused() {
        let mut expected = ExpectedAgents::default();
        let hasty = Expected { grace: Duration::ZERO, ..Expected::named("hasty").unwrap() };
        assert!(expected.add(hasty).unwrap_err().to_string().starts_with("grace: "));
        for number in 0..ExpectedAgents::MAX_EXPECTED {
            expected.add(Expected::named(&format!("agent-{number}")).unwrap()).unwrap();
        }
        let one_more = expected.add(Expected::named("one-more").unwrap());
        assert_eq!(one_more, Err(EntryError::TooMany { most: ExpectedAgents::MAX_EXPECTED }));
    }
}
