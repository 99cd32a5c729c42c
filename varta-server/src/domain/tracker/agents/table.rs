//! The table of agents: the slots, and the lookup of an agent by the sender of a beat.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Range;

use hashbrown::DefaultHashBuilder;

use crate::base::huge_pages::prefer_huge_pages;
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot, IndexKey};
use crate::domain::tracker::agents::index::{Index, NONE};

/// The maximum number of agents, so that slot numbers fit 32 bits.
pub(in crate::domain::tracker) const MAX_AGENTS: usize = u32::MAX as usize - 1;

/// The maximum number of slots that are reserved in advance: 1 GiB. Room for more is allocated as agents
/// come.
const MAX_RESERVED: usize = 1 << 24;
/// The number of slots, 2 MiB, from which on they are kept in huge pages. With fewer that would be a waste.
const MANY_SLOTS: usize = 1 << 15;
/// The number of agents that are looked up together: those of one datagram batch.
pub(in crate::domain::tracker) const TOGETHER: usize = 64;

/// Agents by slot number. Numbers are reused, so the table never outgrows the largest number of agents at one
/// time.
#[derive(Debug, Default)]
pub(in crate::domain::tracker) struct Table {
    slots: Vec<AgentHot>,
    /// Apart from `slots`, by the same number: a beat has no use for them and must not drag them into the
    /// cache.
    rests: Vec<AgentCold>,
    vacant: Vec<u32>,
    /// Slot numbers by source and pid. The key is in the slot, which a beat touches anyway. Twins, which
    /// share source and pid, have the same hash; there are few of them.
    index: Index,
    /// Seeded differently in each process, so that nobody can choose pids that collide.
    hasher: DefaultHashBuilder,
}

/// Reserves room for more, a sixteenth at a time: doubling would leave half of the room for a million agents
/// unused.
pub(in crate::domain::tracker) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 16).max(64));
    }
}

/// The first 64 bits of the fraction of pi.
const SPREADING: u64 = 0x243f_6a88_85a3_08d3;

/// The half of a hash that determines the bucket, after one more multiplication.
///
/// The hasher spreads consecutive pids by one multiplication with its seed, and there are seeds, one in some
/// thousands, by which the pids of a busy host fill a thousand buckets in a row.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the lower half of each is folded")]
const fn spread(hash: u64) -> u32 {
    let product = hash as u128 * SPREADING as u128;
    ((product >> 96) ^ (product >> 32)) as u32
}

impl Table {
    /// Makes a table for at most `most` agents. Their slots are reserved from the beginning, so that they
    /// never move; unused room takes no memory.
    pub(in crate::domain::tracker) fn with_room_for(most: usize) -> Self {
        let mut table = Table::default();
        // Where the host does not grant that much, the slots move as their number grows.
        let _ = table.slots.try_reserve_exact(most.min(MAX_RESERVED));
        table
    }

    /// The slots, their cold parts, and the numbers of vacant ones.
    pub(in crate::domain::tracker) fn parts(&self) -> (&[AgentHot], &[AgentCold], &[u32]) {
        (&self.slots, &self.rests, &self.vacant)
    }

    /// The table of these parts, which belong together: see [`Table::parts`].
    pub(in crate::domain::tracker) fn from_parts(
        most: usize,
        slots: Vec<AgentHot>,
        rests: Vec<AgentCold>,
        vacant: Vec<u32>,
    ) -> Self {
        let mut table = Table::with_room_for(most.max(slots.len()));
        table.slots.extend(slots);
        if table.slots.len() >= MANY_SLOTS {
            prefer_huge_pages(&table.slots);
        }
        table.rests = rests;
        table.vacant = vacant;
        for number in 0..table.slots.len() {
            let slot = &table.slots[number];
            if slot.verdict.is_some() {
                let hash = table.hash(slot.key);
                table.index.insert(hash, u32::try_from(number).expect("slots have numbers of that size"));
            }
        }
        table
    }

    #[inline]
    fn hash(&self, key: IndexKey) -> u32 {
        spread(self.hasher.hash_one((key.source, key.pid)))
    }

    /// Adds an agent that is not in the table, and returns its number. There are fewer than [`MAX_AGENTS`].
    pub(in crate::domain::tracker) fn insert(&mut self, slot: AgentHot, rest: AgentCold) -> u32 {
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

    /// Removes an agent whose verdict has been cleared.
    pub(in crate::domain::tracker) fn remove(&mut self, number: u32) {
        let hash = self.hash(self.slots[number as usize].key);
        self.index.remove(hash, number);
        self.rests[number as usize].extra = None;
        self.vacant.push(number);
    }

    #[inline]
    pub(in crate::domain::tracker) fn find(&self, key: IndexKey) -> Option<u32> {
        let hash = self.hash(key);
        match self.index.any_with(hash) {
            NONE => None,
            number if self.is(number, key) => Some(number),
            _ => self.index.with_hash(hash).find(|number| self.is(*number, key)),
        }
    }

    /// Whether the agent with this number has this key.
    #[inline]
    pub(in crate::domain::tracker) fn is(&self, number: u32, key: IndexKey) -> bool {
        self.slots.get(number as usize).is_some_and(|slot| slot.key == key && slot.verdict.is_some())
    }

    /// The probable numbers of the agents with these keys, which [`Table::is`] confirms. Brings their slots
    /// into the cache: the lookups wait for memory together, twice for all of them and not twice for each.
    #[inline]
    pub(in crate::domain::tracker) fn guess(&self, keys: impl Iterator<Item = IndexKey>) -> [u32; TOGETHER] {
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
    pub(in crate::domain::tracker) fn twins(&self, key: IndexKey) -> impl Iterator<Item = u32> {
        self.index.with_hash(self.hash(key)).filter(move |number| {
            let candidate = self.slots[*number as usize].key;
            (candidate.source, candidate.pid) == (key.source, key.pid)
        })
    }

    #[inline]
    pub(in crate::domain::tracker) fn slot(&self, number: u32) -> &AgentHot {
        &self.slots[number as usize]
    }

    #[inline]
    pub(in crate::domain::tracker) fn slot_mut(&mut self, number: u32) -> &mut AgentHot {
        &mut self.slots[number as usize]
    }

    pub(in crate::domain::tracker) fn rest(&self, number: u32) -> &AgentCold {
        &self.rests[number as usize]
    }

    #[inline]
    pub(in crate::domain::tracker) fn rest_mut(&mut self, number: u32) -> &mut AgentCold {
        &mut self.rests[number as usize]
    }

    /// Both parts of an agent.
    #[inline]
    pub(in crate::domain::tracker) fn both_mut(&mut self, number: u32) -> (&mut AgentHot, &mut AgentCold) {
        (&mut self.slots[number as usize], &mut self.rests[number as usize])
    }

    /// The number of agents.
    pub(in crate::domain::tracker) fn len(&self) -> usize {
        self.index.len()
    }

    /// The number of slots, vacant ones included.
    pub(in crate::domain::tracker) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slots in a range of numbers, vacant ones included, each with its number. The range is cut at the
    /// last slot.
    pub(in crate::domain::tracker) fn range(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (u32, &AgentHot, &AgentCold)> {
        let range = range.start.min(self.slots.len())..range.end.min(self.slots.len());
        let both = self.slots[range.clone()].iter().zip(&self.rests[range.clone()]);
        let numbers = range.map(|number| u32::try_from(number).expect("slots have numbers of that size"));
        numbers.zip(both).map(|(number, (slot, rest))| (number, slot, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_any_distance_are_spread_over_the_buckets() {
        const PARTS: usize = 4_000;
        for distance in [1, 1 << 32, u64::MAX / 2 + 2, u64::MAX / 3 + 1, u64::MAX / 7 + 1, 0x5555_5555 << 32]
        {
            let mut counts = vec![0; PARTS];
            for number in 1..=20_000_u64 {
                let hash = spread(number.wrapping_mul(distance));
                counts[(hash as usize * PARTS) >> 32] += 1;
            }
            let most = counts.into_iter().max().unwrap();
            // There are five in the mean; one of 4,000 has eighteen by chance.
            assert!(most < 40, "{most} of 20,000 at the distance {distance:#x} are in one of {PARTS} parts");
        }
    }
}
