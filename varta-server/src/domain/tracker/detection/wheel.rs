//! A hierarchical timer wheel: which agents must be checked next.
//!
//! A wheel and not a heap: agents come and go from its middle, and a million of them expire at once. It
//! stores no deadlines. An entry means "check this agent no later than then"; the caller that takes it out
//! compares the agent's true deadline with the time and arms the entry again if the deadline has moved. So a
//! beat, which moves a deadline, does not touch the wheel at all, and an entry that expires on a coarse level
//! moves to a finer one by the same rule.
//!
//! After G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987 (scheme 7).
#![expect(clippy::cast_possible_truncation, reason = "numbers of levels and slots, all below 512")]

use crate::base::time::MonoTime;
use crate::domain::tracker::agents::table::grow;

/// A tick is 2^18 ns, about a quarter of a millisecond.
const TICK_BITS: u32 = 18;
/// Every level has 2^6 slots, so that one word says which of them are occupied.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 7;
/// Half a turn of the top level: 18 years. An entry beyond it expires then and is armed again.
const REACH: u64 = 1 << (SLOT_BITS * LEVELS as u32 - 1);

/// No node: the end of a list.
const NIL: u32 = u32::MAX;
/// In no list.
const NOWHERE: u16 = u16::MAX;

const _: () = assert!(LEVELS * SLOTS < NOWHERE as usize, "list numbers fit 16 bits");

/// One for each agent, by its slot number. The list is that of the wheel's slot `list % SLOTS` on level
/// `list / SLOTS`.
#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    previous: u32,
    list: u16,
}

const ABSENT: Node = Node { next: NIL, previous: NIL, list: NOWHERE };

/// Entries by the time at which they expire; at most one for each number.
#[derive(Debug)]
pub(in crate::domain::tracker) struct Wheel {
    /// The tick that has been reached. Slots before it are empty; the one that starts with it may be partly
    /// drained.
    elapsed: u64,
    heads: [u32; LEVELS * SLOTS],
    /// For each level, one bit for each slot that has entries.
    occupied: [u64; LEVELS],
    /// Grows with the agents and never beyond them. Lists are threaded through one vector instead of a vector
    /// for each slot: one slot may come to hold every agent, and moving one must not allocate.
    nodes: Vec<Node>,
}

impl Wheel {
    pub(in crate::domain::tracker) fn new() -> Self {
        Wheel { elapsed: 0, heads: [NIL; LEVELS * SLOTS], occupied: [0; LEVELS], nodes: Vec::new() }
    }

    /// Arms `entry`, to expire at `at` or within a tick after it; replaces an earlier time.
    pub(in crate::domain::tracker) fn arm(&mut self, entry: u32, at: MonoTime) {
        self.disarm(entry);
        let index = entry as usize;
        if index >= self.nodes.len() {
            grow(&mut self.nodes);
            self.nodes.resize(index + 1, ABSENT);
        }
        // Never in the past and never in the slot that is being drained: a loop that arms entries again comes
        // to an end.
        let tick = at.as_nanos().div_ceil(1 << TICK_BITS).clamp(self.elapsed + 1, self.elapsed + REACH);
        let (level, slot) = self.place(tick);
        let list = level * SLOTS + slot;
        let next = self.heads[list];
        if next != NIL {
            self.nodes[next as usize].previous = entry;
        }
        self.nodes[index] = Node { next, previous: NIL, list: list as u16 };
        self.heads[list] = entry;
        self.occupied[level] |= 1 << slot;
    }

    /// Removes `entry`, wherever it is. Nothing happens when it is not armed.
    fn disarm(&mut self, entry: u32) {
        let Some(&Node { next, previous, list }) = self.nodes.get(entry as usize) else { return };
        if list == NOWHERE {
            return;
        }
        let list = list as usize;
        if next != NIL {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NIL {
            self.nodes[previous as usize].next = next;
        } else {
            self.heads[list] = next;
            if next == NIL {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
        self.nodes[entry as usize] = ABSENT;
    }

    /// Takes one entry that has expired by `now`. The caller arms it again if it must expire again.
    pub(in crate::domain::tracker) fn pop(&mut self, now: MonoTime) -> Option<u32> {
        let now_tick = now.as_nanos() >> TICK_BITS;
        match self.first_slot() {
            Some((tick, list)) if tick <= now_tick => {
                self.elapsed = self.elapsed.max(tick);
                let entry = self.heads[list];
                self.disarm(entry);
                Some(entry)
            }
            _ => {
                self.elapsed = self.elapsed.max(now_tick);
                None
            }
        }
    }

    /// The time at which [`Wheel::pop`] next has an entry.
    pub(in crate::domain::tracker) fn next_due(&self) -> Option<MonoTime> {
        self.first_slot().map(|(tick, _)| MonoTime::from_nanos(tick << TICK_BITS))
    }

    /// Level and slot for `tick`: the level is the highest group of six bits in which it differs from the
    /// current tick.
    fn place(&self, tick: u64) -> (usize, usize) {
        let differing = (self.elapsed ^ tick) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
        let slot = (tick >> (level * SLOT_BITS)) % SLOTS as u64;
        (level as usize, slot as usize)
    }

    /// The occupied slot that starts first: the tick with which it starts and the number of its list.
    fn first_slot(&self) -> Option<(u64, usize)> {
        let occupied = self.occupied.iter().enumerate().filter(|(_, slots)| **slots != 0);
        let firsts = occupied.map(|(level, slots)| {
            let shift = level as u32 * SLOT_BITS;
            let present = self.elapsed >> shift;
            let slots_ahead = slots.rotate_right((present % SLOTS as u64) as u32).trailing_zeros();
            let first = present + u64::from(slots_ahead);
            (first << shift, level * SLOTS + (first % SLOTS as u64) as usize)
        });
        firsts.min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drain(wheel: &mut Wheel, now: MonoTime) -> Vec<u32> {
        let mut due: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn an_empty_wheel_asks_for_nothing() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.next_due(), None);
        assert_eq!(wheel.pop(MonoTime::from_secs(1_000)), None);
    }

    #[test]
    fn an_entry_is_never_early() {
        let mut wheel = Wheel::new();
        wheel.arm(3, MonoTime::from_millis(10));
        assert_eq!(wheel.pop(MonoTime::from_nanos(9_999_999)), None);
        assert_eq!(wheel.pop(wheel.next_due().unwrap()), Some(3));
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn an_entry_has_one_place_at_a_time() {
        let mut wheel = Wheel::new();
        wheel.arm(0, MonoTime::from_secs(1));
        wheel.arm(0, MonoTime::from_secs(100_000));
        assert_eq!(wheel.pop(MonoTime::from_secs(2)), None);
        wheel.disarm(0);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn an_entry_put_back_into_the_past_does_not_come_up_in_the_same_turn_for_ever() {
        let mut wheel = Wheel::new();
        let now = MonoTime::from_millis(500);
        wheel.arm(0, MonoTime::START);
        let mut taken = 0;
        while let Some(entry) = wheel.pop(now) {
            wheel.arm(entry, MonoTime::START);
            taken += 1;
            assert!(taken <= now.as_nanos() >> TICK_BITS, "each turn moves the wheel by a tick at least");
        }
    }

    #[test]
    fn moments_beyond_its_reach_wait_and_do_no_harm() {
        let mut wheel = Wheel::new();
        wheel.pop(MonoTime::from_secs(5));
        wheel.arm(0, MonoTime::NEVER);
        assert_eq!(wheel.pop(MonoTime::from_secs(86_400 * 365)), None);
        assert!(wheel.next_due().unwrap() > MonoTime::from_secs(86_400 * 365 * 10));
    }

    proptest! {
        /// Compared with a sorted map: a loop that takes entries and arms them again by their true deadlines
        /// sees each entry once, not before its deadline and not a tick after the time for which the wheel
        /// asked to be woken.
        #[test]
        fn it_agrees_with_a_sorted_map(steps in prop::collection::vec((0u32..64, 0u64..40_000_000_000, 0u64..3_000_000_000), 1..200)) {
            let mut wheel = Wheel::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0u64;
            for (entry, ahead, pass) in steps {
                wheel.arm(entry, MonoTime::from_nanos(now + ahead));
                model.insert(entry, now + ahead);
                let until = now + pass;
                while let Some(wake) = wheel.next_due().filter(|at| at.as_nanos() <= until) {
                    now = now.max(wake.as_nanos());
                    let mut due = Vec::new();
                    while let Some(entry) = wheel.pop(MonoTime::from_nanos(now)) {
                        if model[&entry] > now {
                            wheel.arm(entry, MonoTime::from_nanos(model[&entry]));
                        } else {
                            due.push(entry);
                            model.remove(&entry);
                        }
                    }
                }
                now = until;
                for (entry, deadline) in &model {
                    prop_assert!(*deadline + (1 << TICK_BITS) > now, "{entry} was due at {deadline} and it is {now}");
                }
            }
            for entry in model.keys() {
                wheel.disarm(*entry);
            }
            prop_assert_eq!(wheel.next_due(), None);
        }
    }

    #[test]
    fn many_entries_of_one_moment_all_come_up() {
        let mut wheel = Wheel::new();
        for entry in 0..10_000 {
            wheel.arm(entry, MonoTime::from_secs(7));
        }
        // Coarse slots expire before the deadline: their entries are armed again, as the tracker does.
        let mut due = Vec::new();
        while let Some(wake) = wheel.next_due() {
            for entry in drain(&mut wheel, wake) {
                if wake < MonoTime::from_secs(7) {
                    wheel.arm(entry, MonoTime::from_secs(7));
                } else {
                    due.push(entry);
                }
            }
        }
        due.sort_unstable();
        assert_eq!(due, (0..10_000).collect::<Vec<_>>());
    }
}
