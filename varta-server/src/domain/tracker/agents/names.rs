//! The names of agents, each stored once: thousands of workers have the same one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::process::Lineage;

/// A name by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct NameId(u32);

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NameSource {
    /// The command, or the address of another host. Strangers may have the same name.
    Common,
    /// The unit or the container that the process belongs to.
    Group,
    /// The unit that this host's service manager runs the process in.
    Unit,
    /// The agent itself.
    Agent,
}

impl NameSource {
    /// Whether an agent with such a name continues the series of its predecessors.
    pub(in crate::domain::tracker) const fn is_series(self) -> bool {
        match self {
            NameSource::Common => false,
            NameSource::Group | NameSource::Unit | NameSource::Agent => true,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Name {
    text: Arc<str>,
    /// The number of agents with this name.
    agents: u32,
    /// How often an agent took the place of another with this name.
    restarts: u64,
    /// Agents with this name that became down or gone, in that order; some have come back since.
    departed: VecDeque<Departed>,
}

/// An agent that is down or gone, and whose place another may take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct Departed {
    /// The slot number of the agent.
    pub(in crate::domain::tracker) number: u32,
    pub(in crate::domain::tracker) lineage: Lineage,
}

/// The names in use, at most as many as agents.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct Names {
    /// By number.
    names: Vec<Name>,
    vacant: Vec<u32>,
    #[serde(skip)]
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    /// Finds the numbers of all names again, after they were read.
    pub(in crate::domain::tracker) fn reindex(&mut self) {
        let in_use = (0_u32..).zip(&self.names).filter(|(_, name)| name.agents > 0);
        self.numbers = in_use.map(|(number, name)| (Arc::clone(&name.text), number)).collect();
    }

    /// Whether all agents that were down or gone under some name have such numbers.
    pub(in crate::domain::tracker) fn departed_are(&self, is_right: impl Fn(&u32) -> bool) -> bool {
        self.names.iter().flat_map(|name| &name.departed).all(|departed| is_right(&departed.number))
    }

    /// Whether there is a name with this number.
    pub(in crate::domain::tracker) fn has(&self, id: NameId) -> bool {
        self.names.get(id.0 as usize).is_some_and(|name| name.agents > 0)
    }

    /// Gives a name to one more agent.
    pub(in crate::domain::tracker) fn take(&mut self, name: &str) -> NameId {
        if let Some(number) = self.numbers.get(name) {
            self.names[*number as usize].agents += 1;
            return NameId(*number);
        }
        let name: Arc<str> = Arc::from(name);
        let entry = Name { text: Arc::clone(&name), agents: 1, restarts: 0, departed: VecDeque::new() };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.names[number as usize] = entry;
                number
            }
            None => {
                self.names.push(entry);
                u32::try_from(self.names.len() - 1)
                    .expect("there are fewer names than agents, whose numbers fit")
            }
        };
        self.numbers.insert(name, number);
        NameId(number)
    }

    /// The number of a name, if an agent has it.
    pub(in crate::domain::tracker) fn find(&self, name: &str) -> Option<NameId> {
        self.numbers.get(name).copied().map(NameId)
    }

    /// Whether an agent has this name.
    pub(in crate::domain::tracker) fn is_in_use(&self, name: &str) -> bool {
        self.numbers.contains_key(name)
    }

    /// Counts one more agent with the same name.
    pub(in crate::domain::tracker) fn share(&mut self, id: NameId) -> NameId {
        self.names[id.0 as usize].agents += 1;
        id
    }

    /// Takes a name from one agent. The name is forgotten with its last agent.
    pub(in crate::domain::tracker) fn give_back(&mut self, id: NameId) {
        let name = &mut self.names[id.0 as usize];
        name.agents -= 1;
        if name.agents == 0 {
            name.departed = VecDeque::new();
            self.numbers.remove(&name.text);
            self.vacant.push(id.0);
        }
    }

    /// Records that an agent with this name is down or gone; at most as many as have the name.
    pub(in crate::domain::tracker) fn note_departed(&mut self, id: NameId, departed: Departed) {
        let name = &mut self.names[id.0 as usize];
        if name.departed.len() >= name.agents as usize {
            name.departed.pop_front();
        }
        name.departed.push_back(departed);
    }

    /// The agents that became down or gone under this name, the first of them first; some have come back, or
    /// are other agents by now.
    pub(in crate::domain::tracker) fn departed(&self, id: NameId) -> impl Iterator<Item = &Departed> {
        self.names[id.0 as usize].departed.iter()
    }

    /// Removes one of [`Names::departed`], by its place there.
    pub(in crate::domain::tracker) fn take_departed(&mut self, id: NameId, index: usize) -> Option<u32> {
        self.names[id.0 as usize].departed.remove(index).map(|departed| departed.number)
    }

    pub(in crate::domain::tracker) fn count_restart(&mut self, id: NameId) {
        self.names[id.0 as usize].restarts += 1;
    }

    /// The names in use, and how often agents were restarted under each.
    pub(in crate::domain::tracker) fn restarts(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let in_use = self.names.iter().filter(|name| name.agents > 0);
        in_use.map(|name| (&name.text, name.restarts))
    }

    /// The name with this number.
    pub(in crate::domain::tracker) fn get(&self, id: NameId) -> &Arc<str> {
        &self.names[id.0 as usize].text
    }

    #[cfg(test)]
    pub(in crate::domain::tracker) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lasts_as_long_as_somebody_has_it() {
        let mut names = Names::default();
        let worker = names.take("worker");
        assert_eq!(names.take("worker"), worker);
        let other = names.take("other");
        assert_eq!((&**names.get(worker), &**names.get(other)), ("worker", "other"));
        names.give_back(worker);
        assert_eq!(names.len(), 2);
        names.give_back(worker);
        assert_eq!(names.len(), 1);
        assert_eq!(names.take("third"), worker, "its number is given again");
    }
}
