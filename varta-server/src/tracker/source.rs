//! Where agents beat from, each place kept once, and how many agents it has.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::beat::Origin;

/// An origin by a small number, so that an agent has room for it in its cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceId(u32);

impl SourceId {
    /// This host.
    pub(crate) const LOCAL: SourceId = SourceId(0);
}

/// The origins of all agents. There are no more of them than agents, and this host.
#[derive(Debug)]
pub(super) struct Sources {
    /// By number; this host's first.
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    /// The numbers of the remote ones, by origin.
    index: HashTable<u32>,
    /// Seeded anew in each process, so that nobody can choose addresses that collide.
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Entry {
    origin: Origin,
    agents: usize,
}

impl Default for Sources {
    fn default() -> Self {
        Sources {
            entries: vec![Entry { origin: Origin::Local, agents: 0 }],
            vacant: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl Sources {
    /// The number of an origin that has agents; this host always has one.
    #[inline]
    pub(super) fn find(&self, origin: Origin) -> Option<SourceId> {
        if origin == Origin::Local {
            return Some(SourceId::LOCAL);
        }
        let hash = self.hasher.hash_one(origin);
        self.index.find(hash, |number| self.entries[*number as usize].origin == origin).copied().map(SourceId)
    }

    /// Counts one more agent at an origin, and gives its number.
    pub(super) fn enter(&mut self, origin: Origin) -> SourceId {
        if let Some(known) = self.find(origin) {
            self.entries[known.0 as usize].agents += 1;
            return known;
        }
        let entry = Entry { origin, agents: 1 };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                let number = u32::try_from(self.entries.len())
                    .expect("each has an agent, and there are fewer of those than numbers");
                self.entries.push(entry);
                number
            }
        };
        let Sources { entries, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(origin), number, |number| {
            hasher.hash_one(entries[*number as usize].origin)
        });
        SourceId(number)
    }

    /// Counts one agent less there. With its last one a remote origin is forgotten.
    pub(super) fn leave(&mut self, source: SourceId) {
        let SourceId(number) = source;
        let entry = &mut self.entries[number as usize];
        entry.agents -= 1;
        if entry.agents > 0 || source == SourceId::LOCAL {
            return;
        }
        let hash = self.hasher.hash_one(entry.origin);
        if let Ok(found) = self.index.find_entry(hash, |candidate| *candidate == number) {
            found.remove();
            self.vacant.push(number);
        }
    }

    /// How many agents an origin has.
    pub(super) fn agents_of(&self, origin: Origin) -> usize {
        self.find(origin).map_or(0, |SourceId(number)| self.entries[number as usize].agents)
    }

    /// What a number stands for.
    pub(super) fn origin(&self, source: SourceId) -> Origin {
        self.entries[source.0 as usize].origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Origin {
        Origin::Udp([10, 0, 0, last].into())
    }

    #[test]
    fn an_origin_lasts_as_long_as_it_has_agents() {
        let mut sources = Sources::default();
        let first = sources.enter(host(1));
        assert_eq!(sources.enter(host(1)), first);
        assert_ne!(sources.enter(host(2)), first);
        assert_eq!((sources.agents_of(host(1)), sources.agents_of(host(2))), (2, 1));
        sources.leave(first);
        assert_eq!(sources.find(host(1)), Some(first));
        sources.leave(first);
        assert_eq!(sources.find(host(1)), None);
        assert_eq!(sources.enter(host(3)), first, "its number is given again");
        assert_eq!(sources.origin(first), host(3));
    }

    #[test]
    fn plain_and_sealed_from_one_address_are_two_origins() {
        let mut sources = Sources::default();
        let sealed = Origin::SecureUdp([10, 0, 0, 1].into());
        assert_ne!(sources.enter(host(1)), sources.enter(sealed));
    }

    #[test]
    fn this_host_is_always_known() {
        let mut sources = Sources::default();
        let local = sources.enter(Origin::Local);
        sources.leave(local);
        assert_eq!(sources.find(Origin::Local), Some(SourceId::LOCAL));
    }
}
