//! Where agents are kept, and how one is found by its sender.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::agent::{Rest, Slot};
use crate::beat::Sender;

/// More agents than the numbers of slots can name.
pub(super) const MOST_AGENTS: usize = u32::MAX as usize - 1;

/// Agents by slot number. Numbers are used again, so it never outgrows the most agents that there were at once.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    /// Beside `slots`, by the same number: a beat has no use for it and must not drag it into the cache.
    rests: Vec<Rest>,
    vacant: Vec<u32>,
    /// Slot numbers by sender. Only numbers: the key stands in the slot, which a beat touches anyway.
    index: HashTable<u32>,
    /// Seeded anew in each process, so that nobody can choose pids that collide.
    hasher: DefaultHashBuilder,
}

impl Table {
    /// Adds an agent that is not there yet, and gives it a number. There are fewer than [`MOST_AGENTS`].
    pub(super) fn insert(&mut self, slot: Slot, rest: Rest) -> u32 {
        let hash = self.hasher.hash_one(slot.sender);
        let number = match self.vacant.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                self.rests[number as usize] = rest;
                number
            }
            None => {
                let number =
                    u32::try_from(self.slots.len()).expect("the caller sees to it that there is room");
                self.slots.push(slot);
                self.rests.push(rest);
                number
            }
        };
        let Table { slots, index, hasher, .. } = self;
        index.insert_unique(hash, number, |number| hasher.hash_one(slots[*number as usize].sender));
        number
    }

    /// Forgets an agent. Its verdict is gone already.
    pub(super) fn remove(&mut self, number: u32) {
        let hash = self.hasher.hash_one(self.slots[number as usize].sender);
        if let Ok(entry) = self.index.find_entry(hash, |candidate| *candidate == number) {
            entry.remove();
            self.rests[number as usize].others = None;
            self.vacant.push(number);
        }
    }

    #[inline]
    pub(super) fn find(&self, sender: Sender) -> Option<u32> {
        let hash = self.hasher.hash_one(sender);
        self.index.find(hash, |number| self.slots[*number as usize].sender == sender).copied()
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

    /// The slots in a range of numbers, the vacant ones too. What is beyond the last is empty.
    pub(super) fn range(&self, range: Range<usize>) -> impl Iterator<Item = (&Slot, &Rest)> {
        let range = range.start.min(self.slots.len())..range.end.min(self.slots.len());
        self.slots[range.clone()].iter().zip(&self.rests[range])
    }
}
