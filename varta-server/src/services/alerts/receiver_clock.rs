//! The clock of a receiver, by the `Date` of its answers, and the times that are right by it.
//!
//! An Alertmanager compares the times of an alert with its own clock, and answers 200 whatever follows from
//! that: an end in its future does not end the alert, and an alert that lasts until a time in its past never
//! fires. A `Date` has whole seconds, so that the clock is known to lie within a second and the time that the
//! exchange took.

use std::time::Duration;

use crate::base::clock::WallClock;
use crate::base::time::{MonoTime, WallTime};

/// A `Date` is the time without its fraction of a second.
const DATE_IS_WITHIN: Duration = Duration::from_millis(999);
/// How much two clocks may differ beyond what a `Date` leaves open until it is worth a warning.
const MAX_SKEW: Duration = Duration::from_secs(2);

/// What the newest answer told of the receiver's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReceiverClock(Option<Reading>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    date: WallTime,
    asked_at: MonoTime,
    answered_at: MonoTime,
}

/// The times of an alert as they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentTimes {
    pub(super) starts_at: WallTime,
    pub(super) ends_at: WallTime,
}

/// By how much this host's clock differs from the receiver's, at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockSkew {
    /// This host's clock is ahead.
    Ahead(Duration),
    /// This host's clock is behind.
    Behind(Duration),
}

impl ReceiverClock {
    /// Takes the `Date` of an answer that came at `now` to a request of `asked_at`, and returns by how much
    /// the clocks differ if that matters. An answer without a `Date` tells nothing.
    pub(super) fn learn(
        &mut self,
        date: Option<WallTime>,
        asked_at: MonoTime,
        now: WallClock,
    ) -> Option<ClockSkew> {
        let date = date?;
        self.0 = Some(Reading { date, asked_at, answered_at: now.mono });
        let (earliest, latest) = self.bounds(now);
        let (ahead, behind) = (now.wall.since(latest), earliest.since(now.wall));
        if ahead > MAX_SKEW {
            Some(ClockSkew::Ahead(ahead))
        } else if behind > MAX_SKEW {
            Some(ClockSkew::Behind(behind))
        } else {
            None
        }
    }

    /// The times of an alert that fires for at least `lasts` after this.
    pub(super) fn of_firing(self, starts_at: WallTime, lasts: Duration, now: WallClock) -> SentTimes {
        let (earliest, latest) = self.bounds(now);
        let there = now.wall.clamp(earliest, latest);
        SentTimes { starts_at: starts_at.min(there), ends_at: there.after(lasts) }
    }

    /// The times of an alert that has ended: not in the receiver's future, and in order.
    pub(super) fn of_end(self, starts_at: WallTime, ends_at: WallTime, now: WallClock) -> SentTimes {
        let ends_at = ends_at.min(now.wall).min(self.bounds(now).0);
        SentTimes { starts_at: starts_at.min(ends_at), ends_at }
    }

    /// Whether the end is over by the receiver's clock too. Without a `Date` this host's clock counts.
    pub(super) fn has_passed(self, ends_at: WallTime, now: WallClock) -> bool {
        ends_at <= self.bounds(now).0
    }

    /// What the receiver's clock shows at `now`, at least and at most.
    fn bounds(self, now: WallClock) -> (WallTime, WallTime) {
        let Some(Reading { date, asked_at, answered_at }) = self.0 else { return (now.wall, now.wall) };
        let earliest = date.after(now.mono.since(answered_at));
        (earliest, date.after(now.mono.since(asked_at) + DATE_IS_WITHIN))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn wall(millis: u64) -> WallTime {
        WallTime::from(UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(millis))
    }

    /// This host's clock, at `millis` by both of its clocks.
    fn here(millis: u64) -> WallClock {
        WallClock::new(MonoTime::from_millis(millis), wall(millis).into())
    }

    /// A receiver whose clock shows `date` at `millis` of this host's.
    fn receiver(date: u64, millis: u64) -> (ReceiverClock, Option<ClockSkew>) {
        let mut clock = ReceiverClock::default();
        let skew = clock.learn(Some(wall(date)), MonoTime::from_millis(millis - 10), here(millis));
        (clock, skew)
    }

    const LASTS: Duration = Duration::from_secs(180);

    #[test]
    fn without_a_date_this_hosts_clock_counts() {
        let mut clock = ReceiverClock::default();
        assert_eq!(clock.learn(None, MonoTime::START, here(5_000)), None);
        let firing = clock.of_firing(wall(1_000), LASTS, here(5_000));
        assert_eq!(firing, SentTimes { starts_at: wall(1_000), ends_at: wall(185_000) });
        let end = clock.of_end(wall(1_000), wall(4_000), here(5_000));
        assert_eq!(end, SentTimes { starts_at: wall(1_000), ends_at: wall(4_000) });
        assert!(clock.has_passed(end.ends_at, here(5_000)));
    }

    #[test]
    fn clocks_that_agree_change_no_time_but_an_end_within_the_second_of_the_date() {
        let (clock, skew) = receiver(20_000, 20_700);
        assert_eq!(skew, None);
        let firing = clock.of_firing(wall(20_700), LASTS, here(20_700));
        assert_eq!(firing, SentTimes { starts_at: wall(20_700), ends_at: wall(200_700) });
        // The receiver may be behind by as much as the date leaves open.
        let end = clock.of_end(wall(10_000), wall(21_000), here(21_000));
        assert_eq!(end, SentTimes { starts_at: wall(10_000), ends_at: wall(20_300) });
        let end = clock.of_end(wall(20_900), wall(21_000), here(21_000));
        assert_eq!(end, SentTimes { starts_at: wall(20_300), ends_at: wall(20_300) });
    }

    #[test]
    fn a_sender_that_is_behind_keeps_its_alerts_alive_by_the_receivers_clock() {
        let (clock, skew) = receiver(3_600_000, 10_000);
        assert_eq!(skew, Some(ClockSkew::Behind(Duration::from_secs(3_590))));
        let firing = clock.of_firing(wall(9_000), LASTS, here(40_000));
        assert_eq!(firing, SentTimes { starts_at: wall(9_000), ends_at: wall(3_630_000).after(LASTS) });
        let end = clock.of_end(wall(9_000), wall(39_000), here(40_000));
        assert_eq!(end, SentTimes { starts_at: wall(9_000), ends_at: wall(39_000) });
    }

    #[test]
    fn a_sender_that_is_ahead_ends_nothing_in_the_receivers_future() {
        let (clock, skew) = receiver(10_000, 3_600_000);
        let ahead = Duration::from_secs(3_590) - DATE_IS_WITHIN - Duration::from_millis(10);
        assert_eq!(skew, Some(ClockSkew::Ahead(ahead)));
        let firing = clock.of_firing(wall(3_599_000), LASTS, here(3_600_000));
        assert_eq!(firing, SentTimes { starts_at: wall(11_009), ends_at: wall(11_009).after(LASTS) });
        let end = clock.of_end(wall(3_599_000), wall(3_605_000), here(3_605_000));
        assert_eq!(end, SentTimes { starts_at: wall(15_000), ends_at: wall(15_000) });
        assert!(clock.has_passed(end.ends_at, here(3_605_000)));
        assert!(!clock.has_passed(wall(3_605_000), here(3_605_000)));
    }

    #[test]
    fn an_end_is_never_before_its_start_also_when_this_hosts_clock_was_set_back() {
        let now = here(100_000);
        let end = ReceiverClock::default().of_end(wall(500_000), wall(500_000), now);
        assert_eq!(end, SentTimes { starts_at: now.wall, ends_at: now.wall });
        let firing = ReceiverClock::default().of_firing(wall(500_000), LASTS, now);
        assert_eq!(firing.starts_at, now.wall);
    }
}
