//! The agents that are known by their names alone, and the numbers that stand for the pids that they do not have.

use std::collections::HashMap;
use std::sync::Arc;

/// The first number: no pid is as large.
const FIRST: u32 = 1 << 31;

/// The slots of named agents, by name. A name has one agent at the most, which belongs to the user who made it.
#[derive(Debug)]
pub(in crate::domain::tracker) struct NamedAgents {
    slots: HashMap<Arc<str>, u32>,
    /// The number of the next agent.
    next: u32,
}

impl Default for NamedAgents {
    fn default() -> Self {
        NamedAgents { slots: HashMap::new(), next: FIRST }
    }
}

impl NamedAgents {
    /// The slot of the agent with this name.
    pub(in crate::domain::tracker) fn find(&self, name: &str) -> Option<u32> {
        self.slots.get(name).copied()
    }

    /// A number in place of a pid, which no agent has for which `is_taken` is false. There are more numbers than agents.
    pub(in crate::domain::tracker) fn take_number(&mut self, is_taken: impl Fn(u32) -> bool) -> u32 {
        loop {
            let number = self.next;
            self.next = number.checked_add(1).unwrap_or(FIRST);
            if !is_taken(number) {
                return number;
            }
        }
    }

    /// Adds an agent.
    pub(in crate::domain::tracker) fn add(&mut self, name: &Arc<str>, slot: u32) {
        self.slots.insert(Arc::clone(name), slot);
    }

    /// Removes the agent with this name that has this slot.
    pub(in crate::domain::tracker) fn remove(&mut self, name: &str, slot: u32) {
        if self.find(name) == Some(slot) {
            self.slots.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_no_pids_and_come_again_only_when_they_are_free() {
        let mut named = NamedAgents { next: u32::MAX, ..NamedAgents::default() };
        let taken = [u32::MAX, FIRST];
        assert_eq!(named.take_number(|number| taken.contains(&number)), FIRST + 1);
        assert_eq!(named.take_number(|_| false), FIRST + 2);
    }

    #[test]
    fn a_name_is_removed_with_its_own_slot_only() {
        let mut named = NamedAgents::default();
        named.add(&"backup".into(), 7);
        named.remove("backup", 8);
        assert_eq!(named.find("backup"), Some(7));
        named.remove("backup", 7);
        assert_eq!(named.find("backup"), None);
    }
}
