//! Agents' names, each kept once: thousands of workers have the same one.

use std::collections::HashMap;
use std::sync::Arc;

/// A name by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameId(u32);

/// The names in use. There are no more of them than agents.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By number, with how many agents have it.
    names: Vec<(Arc<str>, u32)>,
    vacant: Vec<u32>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    /// Gives a name to one more agent.
    pub(super) fn take(&mut self, name: &str) -> NameId {
        if let Some(number) = self.numbers.get(name) {
            self.names[*number as usize].1 += 1;
            return NameId(*number);
        }
        let name: Arc<str> = Arc::from(name);
        let entry = (Arc::clone(&name), 1);
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

    /// Counts one more agent with the same name.
    pub(super) fn share(&mut self, id: NameId) -> NameId {
        self.names[id.0 as usize].1 += 1;
        id
    }

    /// Takes a name back from one agent. With the last one it is forgotten.
    pub(super) fn give_back(&mut self, id: NameId) {
        let (name, agents) = &mut self.names[id.0 as usize];
        *agents -= 1;
        if *agents == 0 {
            self.numbers.remove(name);
            self.vacant.push(id.0);
        }
    }

    /// What the number stands for.
    pub(super) fn get(&self, id: NameId) -> &Arc<str> {
        &self.names[id.0 as usize].0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
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
