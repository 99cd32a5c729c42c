//! Where the processes of agents run, each place stored once: thousands of workers have the same one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::domain::process::ProcessPlace;

/// The places of agents, by their slot numbers. Agents of other hosts, and those in the root of the cgroups,
/// have none and take no memory.
#[derive(Debug, Default)]
pub(in crate::domain::tracker) struct Places {
    of: HashMap<u32, Arc<ProcessPlace>>,
    known: HashSet<Arc<ProcessPlace>>,
}

impl Places {
    /// The place of each agent that has one.
    pub(in crate::domain::tracker) fn iter(&self) -> impl Iterator<Item = (u32, &ProcessPlace)> {
        self.of.iter().map(|(number, place)| (*number, &**place))
    }

    /// Sets the place of an agent.
    pub(in crate::domain::tracker) fn set(&mut self, number: u32, place: Option<ProcessPlace>) {
        let Some(place) = place else { return self.forget(number) };
        if self.get(number) == Some(&place) {
            return;
        }
        self.forget(number);
        let place = match self.known.get(&place) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(place);
                self.known.insert(Arc::clone(&new));
                new
            }
        };
        self.of.insert(number, place);
    }

    /// The place of an agent, if it is known.
    pub(in crate::domain::tracker) fn get(&self, number: u32) -> Option<&ProcessPlace> {
        self.of.get(&number).map(|place| &**place)
    }

    /// Forgets the place of an agent, and the place itself with the last agent in it.
    pub(in crate::domain::tracker) fn forget(&mut self, number: u32) {
        if let Some(place) = self.of.remove(&number)
            // Here, and among those that are known.
            && Arc::strong_count(&place) == 2
        {
            self.known.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_stored_once_and_as_long_as_somebody_is_there() {
        let place = |cgroup: &str| ProcessPlace { cgroup: cgroup.into(), container: None };
        let mut places = Places::default();
        for number in [1, 2, 2, 3] {
            places.set(number, Some(place(if number == 3 { "/b" } else { "/a" })));
        }
        assert_eq!(
            (places.get(2), places.get(3), places.get(4)),
            (Some(&place("/a")), Some(&place("/b")), None)
        );
        assert_eq!((places.of.len(), places.known.len()), (3, 2));
        places.forget(1);
        places.set(3, Some(place("/a")));
        assert_eq!((places.get(1), places.known.len()), (None, 1));
        places.set(3, None);
        places.forget(2);
        places.forget(2);
        assert!(places.of.is_empty() && places.known.is_empty());
    }
}
