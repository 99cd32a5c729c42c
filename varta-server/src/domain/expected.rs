//! Agents that are to come: if they do not, somebody is told.

use std::collections::HashSet;
use std::time::Duration;

use varta_proto::control::AgentName;

use crate::base::EntryError;
use crate::base::limits::check_duration;

/// An agent that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What it is called.
    pub name: AgentName,
    /// How long after the server's start it may take for its first beat.
    pub grace: Duration,
}

impl Expected {
    /// How long an agent may take that nobody has given another time.
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

/// The agents that are to come, each name once.
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
    /// In the order in which they were written.
    agents: Vec<Expected>,
    names: HashSet<AgentName>,
}

impl ExpectedAgents {
    /// How many there may be: more than people write by hand, and few beside what a tracker has room for.
    pub const MOST: usize = 10_000;

    /// Adds an agent.
    ///
    /// # Errors
    ///
    /// When there are too many, when its name is there already, or when the grace is not between
    /// [10 ms](crate::base::limits::SHORTEST_STALL_AFTER) and [366 days](crate::base::limits::LONGEST_DURATION). Nothing has changed then.
    pub fn add(&mut self, agent: Expected) -> Result<(), EntryError> {
        check_duration("grace", agent.grace)?;
        if self.agents.len() >= Self::MOST {
            return Err(EntryError::TooMany { most: Self::MOST });
        }
        if !self.names.insert(agent.name) {
            return Err(EntryError::NameTwice { name: agent.name.to_string() });
        }
        self.agents.push(agent);
        Ok(())
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// Every agent, in the order in which they were added.
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
        for number in 0..ExpectedAgents::MOST {
            expected.add(Expected::named(&format!("agent-{number}")).unwrap()).unwrap();
        }
        let one_more = expected.add(Expected::named("one-more").unwrap());
        assert_eq!(one_more, Err(EntryError::TooMany { most: ExpectedAgents::MOST }));
    }
}
