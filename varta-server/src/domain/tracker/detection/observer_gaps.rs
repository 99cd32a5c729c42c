//! Observer gaps: times in which the server could not observe its agents, and how they move deadlines.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::MonoTime;

/// The maximum number of gaps that are kept apart. Beyond it the two oldest become one: that matters only on
/// a server that starves all the time to an agent that was silent throughout, which then gets more time.
const MAX_GAPS: usize = 64;

/// A time in which the server could not observe its agents.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ObserverGap {
    from: MonoTime,
    to: MonoTime,
    /// How much of it was a gap: less than all when it was merged from two.
    length: Duration,
    /// The total length of the gaps before it.
    before: Duration,
}

/// All observer gaps so far.
///
/// A gap counts by the time at which it was, and not by what was known when a beat was handled. So it does
/// not matter whether the server first handles what has arrived and then records the gap, or the other way
/// round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct ObserverGaps {
    /// In order, without overlaps.
    times: VecDeque<ObserverGap>,
    total: Duration,
}

impl ObserverGaps {
    /// Adds the gap between `from` and `to`.
    pub(in crate::domain::tracker) fn add(&mut self, from: MonoTime, to: MonoTime) {
        let from = from.max(self.sight_since());
        if to <= from {
            return;
        }
        if self.times.len() >= MAX_GAPS
            && let Some(first) = self.times.pop_front()
            && let Some(second) = self.times.front_mut()
        {
            let ObserverGap { from, length, before, .. } = first;
            *second = ObserverGap { from, to: second.to, length: length + second.length, before };
        }
        let length = to.since(from);
        self.times.push_back(ObserverGap { from, to, length, before: self.total });
        self.total += length;
    }

    /// The end of the last gap. A silence before it proves nothing.
    fn sight_since(&self) -> MonoTime {
        self.times.back().map_or(MonoTime::START, |last| last.to)
    }

    /// Whether the last gap ended at least `since` ago, or there was none.
    pub(in crate::domain::tracker) fn is_over(&self, since: Duration, now: MonoTime) -> bool {
        self.times.is_empty() || now >= self.sight_since() + since
    }

    /// Whether a gap covers some of the silence of an agent that beat last at `last_beat`.
    pub(in crate::domain::tracker) fn hides(&self, last_beat: MonoTime) -> bool {
        last_beat < self.sight_since()
    }

    /// The total length of the gaps after `then`.
    fn after(&self, then: MonoTime) -> Duration {
        let first = self.times.partition_point(|blind| blind.to <= then);
        let Some(ObserverGap { to, length, before, .. }) = self.times.get(first) else {
            return Duration::ZERO;
        };
        let of_first = to.since(then).min(*length);
        of_first + self.total.saturating_sub(*before + *length)
    }

    /// The deadline of an agent that beat last at `last_beat`.
    ///
    /// An agent that has not beaten since the last gap has a whole stall timeout from its end on, but
    /// altogether no more than the length of the gaps and one stall timeout above what it had anyway. A later
    /// beat never makes for an earlier deadline.
    pub(in crate::domain::tracker) fn deadline(
        &self,
        last_beat: MonoTime,
        stall_after: Duration,
    ) -> MonoTime {
        let deadline = last_beat + stall_after;
        if !self.hides(last_beat) {
            return deadline;
        }
        let moved = deadline + self.after(last_beat);
        (self.sight_since() + stall_after).min(moved + stall_after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STALL_AFTER: Duration = Duration::from_secs(5);

    fn blind(times: impl IntoIterator<Item = (u64, u64)>) -> ObserverGaps {
        let mut blindness = ObserverGaps::default();
        for (from, to) in times {
            blindness.add(MonoTime::from_secs(from), MonoTime::from_secs(to));
        }
        blindness
    }

    fn deadline(blindness: &ObserverGaps, last_beat: u64) -> MonoTime {
        blindness.deadline(MonoTime::from_secs(last_beat), STALL_AFTER)
    }

    #[test]
    fn a_beat_after_it_makes_up_for_all_blindness() {
        assert_eq!(deadline(&blind([(1, 9)]), 9), MonoTime::from_secs(14));
    }

    #[test]
    fn a_short_blindness_gives_a_whole_stall_after_from_its_end_on() {
        assert_eq!(deadline(&blind([(3, 4)]), 1), MonoTime::from_secs(9));
    }

    #[test]
    fn all_blindness_together_gives_no_more_than_itself_and_one_stall_after() {
        let blindness = blind((10..100).step_by(2).map(|second| (second, second + 1)));
        assert_eq!(deadline(&blindness, 1), MonoTime::from_secs(1 + 5 + 45 + 5));
    }

    #[test]
    fn what_was_before_a_beat_does_not_count_for_it_whenever_it_is_noted() {
        assert_eq!(deadline(&blind([(1, 60), (61, 62)]), 60), MonoTime::from_secs(67));
    }

    #[test]
    fn time_is_blind_once() {
        let blindness = blind([(10, 20), (15, 25), (5, 12), (25, 25)]);
        assert_eq!(blindness.after(MonoTime::START), Duration::from_secs(15));
    }

    proptest! {
        /// Compared with a list of all gaps: exact as long as that is not too long, and never less.
        #[test]
        fn it_agrees_with_a_list_of_all_there_was(
            steps in prop::collection::vec((0_u64..10, 1_u64..10), 1..150), then in 0_u64..1_000
        ) {
            let mut blindness = ObserverGaps::default();
            let (mut now, mut expected) = (0, 0);
            for (pass, length) in &steps {
                let (from, to) = (now + pass, now + pass + length);
                now = to;
                blindness.add(MonoTime::from_secs(from), MonoTime::from_secs(to));
                expected += to.saturating_sub(from.max(then));
            }
            let found = blindness.after(MonoTime::from_secs(then)).as_secs();
            prop_assert!(blindness.times.len() <= MAX_GAPS);
            prop_assert!(found >= expected && (found == expected || steps.len() > MAX_GAPS));
            let later = deadline(&blindness, then + 1);
            prop_assert!(steps.len() > MAX_GAPS || deadline(&blindness, then) <= later);
        }
    }
}
