//! Where agents are kept, and how one is found by who sent a beat.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Range;

use hashbrown::DefaultHashBuilder;

use crate::base::huge_pages::prefer_huge_pages;
use crate::domain::tracker::agents::agent::{AgentKey, Rest, Slot};
use crate::domain::tracker::agents::index::{Index, NONE};

/// More agents than the numbers of slots can name.
pub(in crate::domain::tracker) const MOST_AGENTS: usize = u32::MAX as usize - 1;

/// For more agents there is no room until they come: 1 GiB of slots.
const MOST_RESERVED: usize = 1 << 24;
/// From 2 MiB of slots on they are kept in huge pages. With fewer that would be a waste.
const MANY_SLOTS: usize = 1 << 15;
/// So many agents are found together: what one datagram batch brings.
pub(in crate::domain::tracker) const TOGETHER: usize = 64;

/// Agents by slot number. Numbers are used again, so it never outgrows the most agents that there were at once.
#[derive(Debug, Default)]
pub(in crate::domain::tracker) struct Table {
    slots: Vec<Slot>,
    /// Beside `slots`, by the same number: a beat has no use for it and must not drag it into the cache.
    rests: Vec<Rest>,
    vacant: Vec<u32>,
    /// Slot numbers by source and pid. The key stands in the slot, which a beat touches anyway. Twins, which share source
    /// and pid, have the same hash; there are few of them.
    index: Index,
    /// Seeded anew in each process, so that nobody can choose pids that collide.
    hasher: DefaultHashBuilder,
}

/// Makes room for one more, a sixteenth more than there is at a time: doubling would leave half of a million agents' room
/// unused.
pub(in crate::domain::tracker) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 16).max(64));
    }
}

impl Table {
    /// Makes one that is to have at most so many agents. Their slots have room from the beginning, so that they never move;
    /// what nobody uses of it takes no memory.
    pub(in crate::domain::tracker) fn with_room_for(most: usize) -> Self {
        let mut table = Table::default();
        // Where the host does not lend that much the slots move as they become more.
        let _ = table.slots.try_reserve_exact(most.min(MOST_RESERVED));
        table
    }

    #[inline]
    fn hash(&self, key: AgentKey) -> u32 {
        (self.hasher.hash_one((key.source, key.pid)) >> 32) as u32
    }

    /// Adds an agent that is not there yet, and gives it a number. There are fewer than [`MOST_AGENTS`].
    pub(in crate::domain::tracker) fn insert(&mut self, slot: Slot, rest: Rest) -> u32 {
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
                if self.slots.len() == MANY_SLOTS {
                    prefer_huge_pages(&self.slots);
                }
                self.slots.push(slot);
                grow(&mut self.rests);
                self.rests.push(rest);
                number
            }
        };
        self.index.insert(hash, number);
        number
    }

    /// Forgets an agent. Its verdict is gone already.
    pub(in crate::domain::tracker) fn remove(&mut self, number: u32) {
        let hash = self.hash(self.slots[number as usize].key);
        self.index.remove(hash, number);
        self.rests[number as usize].extra = None;
        self.vacant.push(number);
    }

    #[inline]
    pub(in crate::domain::tracker) fn find(&self, key: AgentKey) -> Option<u32> {
        let hash = self.hash(key);
        match self.index.any_with(hash) {
            NONE => None,
            number if self.is(number, key) => Some(number),
            _ => self.index.with_hash(hash).find(|number| self.is(*number, key)),
        }
    }

    /// Whether this is the number of the agent with this key.
    #[inline]
    pub(in crate::domain::tracker) fn is(&self, number: u32, key: AgentKey) -> bool {
        self.slots.get(number as usize).is_some_and(|slot| slot.key == key && slot.verdict.is_some())
    }

    /// The numbers that agents with these keys most likely have, as far as there are any, for [`Table::is`] to confirm. Brings
    /// their slots into the cache: memory is waited for together, twice for all of them and not twice for each.
    #[inline]
    pub(in crate::domain::tracker) fn guess(&self, keys: impl Iterator<Item = AgentKey>) -> [u32; TOGETHER] {
        let (mut hashes, mut numbers) = ([0; TOGETHER], [NONE; TOGETHER]);
        let mut count = 0;
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.hash(key);
            count += 1;
        }
        let (hashes, likely) = (&hashes[..count], &mut numbers[..count]);
        black_box(hashes.iter().fold(0, |sum, hash| sum ^ self.index.touch(*hash)));
        for (number, hash) in likely.iter_mut().zip(hashes) {
            *number = self.index.any_with(*hash);
        }
        let slots = likely.iter().filter_map(|number| self.slots.get(*number as usize));
        black_box(slots.fold(0, |sum, slot| sum ^ slot.beats));
        numbers
    }

    /// The agents that share source and pid with `key`.
    pub(in crate::domain::tracker) fn twins(&self, key: AgentKey) -> impl Iterator<Item = u32> {
        self.index.with_hash(self.hash(key)).filter(move |number| {
            let candidate = self.slots[*number as usize].key;
            (candidate.source, candidate.pid) == (key.source, key.pid)
        })
    }

    #[inline]
    pub(in crate::domain::tracker) fn slot(&self, number: u32) -> &Slot {
        &self.slots[number as usize]
    }

    #[inline]
    pub(in crate::domain::tracker) fn slot_mut(&mut self, number: u32) -> &mut Slot {
        &mut self.slots[number as usize]
    }

    pub(in crate::domain::tracker) fn rest(&self, number: u32) -> &Rest {
        &self.rests[number as usize]
    }

    #[inline]
    pub(in crate::domain::tracker) fn rest_mut(&mut self, number: u32) -> &mut Rest {
        &mut self.rests[number as usize]
    }

    /// Both halves of an agent.
    #[inline]
    pub(in crate::domain::tracker) fn both_mut(&mut self, number: u32) -> (&mut Slot, &mut Rest) {
        (&mut self.slots[number as usize], &mut self.rests[number as usize])
    }

    /// How many agents there are.
    pub(in crate::domain::tracker) fn len(&self) -> usize {
        self.index.len()
    }

    /// How many numbers there are, those of vacant slots included.
    pub(in crate::domain::tracker) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slots in a range of numbers, the vacant ones too, each with its number. What is beyond the last is empty.
    pub(in crate::domain::tracker) fn range(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (u32, &Slot, &Rest)> {
        let range = range.start.min(self.slots.len())..range.end.min(self.slots.len());
        let both = self.slots[range.clone()].iter().zip(&self.rests[range.clone()]);
        let numbers = range.map(|number| u32::try_from(number).expect("slots have numbers of that size"));
        numbers.zip(both).map(|(number, (slot, rest))| (number, slot, rest))
    }
}
