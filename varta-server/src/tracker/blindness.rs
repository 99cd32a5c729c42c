//! The times at which nothing could be seen, and what they do to a deadline.

use std::time::Duration;

use crate::time::MonoTime;

/// What there was of blindness so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blindness {
    /// Since when nothing was missed. Before it, a silence proves nothing.
    sight_since: MonoTime,
    /// For how long altogether nothing could be seen; goes round after 49 days of blindness.
    millis: u32,
}

impl Blindness {
    /// Adds the time between `from` and `to`.
    pub(super) fn add(&mut self, from: MonoTime, to: MonoTime) {
        // What is beyond 49 days is as good as for ever.
        let millis = u32::try_from(to.since(from).as_millis()).unwrap_or(u32::MAX);
        self.millis = self.millis.wrapping_add(millis);
        self.sight_since = self.sight_since.max(to);
    }

    /// How much there was so far: what an agent remembers with each beat.
    pub(super) fn millis(&self) -> u32 {
        self.millis
    }

    /// Whether the silence of an agent that beat last at `last_beat` proves nothing, or not all of it does.
    pub(super) fn hides(&self, last_beat: MonoTime) -> bool {
        last_beat < self.sight_since
    }

    /// The deadline of an agent that beat last at `last_beat`, when there had been `before` of blindness.
    ///
    /// Whoever has not beaten since the last blindness has a whole stall-after from its end on, but altogether no more
    /// than the blind time and one stall-after above what it had anyway.
    pub(super) fn deadline(&self, last_beat: MonoTime, before: u32, stall_after: Duration) -> MonoTime {
        let deadline = last_beat + stall_after;
        if last_beat >= self.sight_since {
            return deadline;
        }
        let moved = deadline + Duration::from_millis(u64::from(self.millis.wrapping_sub(before)));
        moved.max((self.sight_since + stall_after).min(moved + stall_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_AFTER: Duration = Duration::from_secs(5);

    #[test]
    fn a_beat_after_it_makes_up_for_all_blindness() {
        let mut blindness = Blindness::default();
        blindness.add(MonoTime::from_secs(1), MonoTime::from_secs(9));
        let deadline = blindness.deadline(MonoTime::from_secs(9), blindness.millis(), STALL_AFTER);
        assert_eq!(deadline, MonoTime::from_secs(14));
    }

    #[test]
    fn a_short_blindness_gives_a_whole_stall_after_from_its_end_on() {
        let mut blindness = Blindness::default();
        blindness.add(MonoTime::from_secs(3), MonoTime::from_secs(4));
        assert_eq!(blindness.deadline(MonoTime::from_secs(1), 0, STALL_AFTER), MonoTime::from_secs(9));
    }

    #[test]
    fn all_blindness_together_gives_no_more_than_itself_and_one_stall_after() {
        let mut blindness = Blindness::default();
        for second in (10..100).step_by(2) {
            blindness.add(MonoTime::from_secs(second), MonoTime::from_secs(second + 1));
        }
        let deadline = blindness.deadline(MonoTime::from_secs(1), 0, STALL_AFTER);
        assert_eq!(deadline, MonoTime::from_secs(1 + 5 + 45 + 5));
    }
}
