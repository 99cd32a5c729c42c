//! Where agents are kept, and how one is found by who sent a beat.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::agent::{AgentKey, Rest, Slot};

/// More agents than the numbers of slots can name.
pub(super) const MOST_AGENTS: usize = u32::MAX as usize - 1;

/// Agents by slot number. Numbers are used again, so it never outgrows the most agents that there were at once.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    /// Beside `slots`, by the same number: a beat has no use for it and must not drag it into the cache.
    rests: Vec<Rest>,
    vacant: Vec<u32>,
    /// Slot numbers by source and pid. Only numbers: the key stands in the slot, which a beat touches anyway. Twins, which
    /// share source and pid, have the same hash; there are few of them.
    index: HashTable<u32>,
    /// Seeded anew in each process, so that nobody can choose pids that collide.
    hasher: DefaultHashBuilder,
}

/// Makes room for one more, a sixteenth more than there is at a time: doubling would leave half of a million agents' room
/// unused.
pub(super) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 16).max(64));
    }
}

impl Table {
    fn hash(&self, key: AgentKey) -> u64 {
        self.hasher.hash_one((key.source, key.pid))
    }

    /// Adds an agent that is not there yet, and gives it a number. There are fewer than [`MOST_AGENTS`].
    pub(super) fn insert(&mut self, slot: Slot, rest: Rest) -> u32 {
        let hash = self.hash(slot.key);
        let number = match self.vacant.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                self.rests[number as usize] = rest;
                number
            }
            None => {
                let number =
                    u32::try_from(self.slots.len()).expect("the caller sees to it that there is room");
                grow(&mut self.slots);
                self.slots.push(slot);
                grow(&mut self.rests);
                self.rests.push(rest);
                number
            }
        };
        let Table { slots, index, hasher, .. } = self;
        index.insert_unique(hash, number, |number| {
            let AgentKey { source, pid, .. } = slots[*number as usize].key;
            hasher.hash_one((source, pid))
        });
        number
    }

    /// Forgets an agent. Its verdict is gone already.
    pub(super) fn remove(&mut self, number: u32) {
        let hash = self.hash(self.slots[number as usize].key);
        if let Ok(entry) = self.index.find_entry(hash, |candidate| *candidate == number) {
            entry.remove();
            self.rests[number as usize].extra = None;
            self.vacant.push(number);
        }
    }

    #[inline]
    pub(super) fn find(&self, key: AgentKey) -> Option<u32> {
        self.index.find(self.hash(key), |number| self.slots[*number as usize].key == key).copied()
    }

    /// The agents that share source and pid with `key`.
    pub(super) fn twins(&self, key: AgentKey) -> impl Iterator<Item = u32> {
        self.index.iter_hash(self.hash(key)).copied().filter(move |number| {
            let candidate = self.slots[*number as usize].key;
            (candidate.source, candidate.pid) == (key.source, key.pid)
        })
    }

    #[inline]
    pub(super) fn slot(&self, number: u32) -> &Slot {
        &self.slots[number as usize]
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, number: u32) -> &mut Slot {
        &mut self.slots[number as usize]
    }

    pub(super) fn rest(&self, number: u32) -> &Rest {
        &self.rests[number as usize]
    }

    #[inline]
    pub(super) fn rest_mut(&mut self, number: u32) -> &mut Rest {
        &mut self.rests[number as usize]
    }

    /// Both halves of an agent.
    #[inline]
    pub(super) fn both_mut(&mut self, number: u32) -> (&mut Slot, &mut Rest) {
        (&mut self.slots[number as usize], &mut self.rests[number as usize])
    }

    /// How many agents there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// How many numbers there are, those of vacant slots included.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slots in a range of numbers, the vacant ones too, each with its number. What is beyond the last is empty.
    pub(super) fn range(&self, range: Range<usize>) -> impl Iterator<Item = (u32, &Slot, &Rest)> {
        let range = range.start.min(self.slots.len())..range.end.min(self.slots.len());
        let both = self.slots[range.clone()].iter().zip(&self.rests[range.clone()]);
        let numbers = range.map(|number| u32::try_from(number).expect("slots have numbers of that size"));
        numbers.zip(both).map(|(number, (slot, rest))| (number, slot, rest))
    }
}
