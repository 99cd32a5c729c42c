//! Rate limits: so many events within a time, and no more.
//!
//! [`RateLimit`] is the generic cell rate algorithm (ITU-T I.371): a token bucket of which one time is kept.
//! Its tokens come back evenly. [`FixedWindow`] counts the events of a second, and begins again with the next
//! one.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::{MonoTime, nanos};

const SECOND: u64 = 1_000_000_000;

/// So many events within a time over time, and as many at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    /// Nanoseconds that one event uses up; 0 when there is no limit.
    cost: u64,
    /// Nanoseconds that may be used up at once.
    burst: u64,
}

/// What has been used of a limit: the moment at which all of it will be free again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage(u64);

impl Usage {
    /// It by a clock that started so long after the one of before, in nanoseconds.
    pub(crate) fn shifted(self, by: i128) -> Self {
        Usage(MonoTime::from_nanos(self.0).shifted(by).as_nanos())
    }
}

impl RateLimit {
    /// At most `per_second` events a second; 0 is no limit.
    pub(crate) fn unlimited_if_zero(per_second: u32) -> Self {
        RateLimit { cost: SECOND.checked_div(u64::from(per_second)).unwrap_or(0), burst: SECOND }
    }

    /// At most `per_second` events a second; 0 is none at all.
    pub(crate) fn none_if_zero(per_second: u32) -> Self {
        RateLimit { cost: SECOND.checked_div(u64::from(per_second)).unwrap_or(SECOND + 1), burst: SECOND }
    }

    /// At most `events` events within `within`.
    pub(crate) fn within(events: NonZeroU32, within: Duration) -> Self {
        let burst = nanos(within);
        RateLimit { cost: burst / u64::from(events.get()), burst }
    }

    /// Whether one more event is within the limit; if so it is counted.
    #[inline]
    pub(crate) fn try_take(self, usage: &mut Usage, now: MonoTime) -> bool {
        if self.cost == 0 {
            return true;
        }
        let now = now.as_nanos();
        let free_at = usage.0.max(now) + self.cost;
        if free_at - now > self.burst {
            return false;
        }
        usage.0 = free_at;
        true
    }

    /// When one more event is within the limit, which may have been before.
    pub(crate) fn next_at(self, usage: Usage) -> MonoTime {
        MonoTime::from_nanos(usage.0.saturating_add(self.cost).saturating_sub(self.burst))
    }

    /// Counts an event that is within the limit, see [`next_at`](RateLimit::next_at).
    pub(crate) fn take(self, usage: &mut Usage, now: MonoTime) {
        usage.0 = usage.0.max(now.as_nanos()).saturating_add(self.cost);
    }

    /// Takes back an event that was counted and did not come about.
    pub(crate) fn give_back(self, usage: &mut Usage) {
        usage.0 = usage.0.saturating_sub(self.cost);
    }
}

impl Usage {
    /// Whether all of the limit is free.
    pub(crate) fn is_zero(self, now: MonoTime) -> bool {
        self.0 <= now.as_nanos()
    }
}

/// The events of the present second. A second begins with the first event that comes a second or more after
/// the last one began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedWindow {
    per_second: u32,
    began_at: MonoTime,
    taken: u32,
}

impl FixedWindow {
    pub(crate) const fn new(per_second: u32) -> Self {
        FixedWindow { per_second, began_at: MonoTime::START, taken: 0 }
    }

    pub(crate) const fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Begins the next second if the present one is over, and says whether it has.
    pub(crate) fn advance(&mut self, now: MonoTime) -> bool {
        let is_over = now.since(self.began_at) >= Duration::from_secs(1);
        if is_over {
            *self = FixedWindow { began_at: now, ..FixedWindow::new(self.per_second) };
        }
        is_over
    }

    /// Whether one more event is within the limit.
    pub(crate) const fn has_room(&self) -> bool {
        self.taken < self.per_second
    }

    /// Counts an event.
    pub(crate) const fn take(&mut self) {
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> MonoTime {
        MonoTime::from_secs(secs)
    }

    fn limit(events: u32, secs: u64) -> RateLimit {
        RateLimit::within(NonZeroU32::new(events).unwrap(), Duration::from_secs(secs))
    }

    #[test]
    fn a_seconds_events_may_come_at_once_and_then_one_at_a_time() {
        for limit in [RateLimit::unlimited_if_zero(10), RateLimit::none_if_zero(10), limit(10, 1)] {
            let mut usage = Usage::default();
            let taken = (0..100).filter(|_| limit.try_take(&mut usage, at(50))).count();
            assert_eq!(taken, 10);
            assert!(!limit.try_take(&mut usage, MonoTime::from_millis(50_099)));
            assert!(limit.try_take(&mut usage, MonoTime::from_millis(50_100)));
            assert!(!limit.try_take(&mut usage, MonoTime::from_millis(50_100)));
        }
    }

    #[test]
    fn zero_is_no_limit_or_none_at_all() {
        let mut usage = Usage::default();
        let unlimited = RateLimit::unlimited_if_zero(0);
        assert!((0..10_000).all(|_| unlimited.try_take(&mut usage, MonoTime::START)));
        let none = RateLimit::none_if_zero(0);
        assert!((0..10_000).all(|second| !none.try_take(&mut usage, at(second))));
    }

    #[test]
    fn all_of_it_may_be_taken_at_once_and_comes_back_evenly() {
        let limit = limit(3, 30);
        let mut usage = Usage::default();
        let mut taken = 0;
        while limit.next_at(usage) <= at(100) {
            limit.take(&mut usage, at(100));
            taken += 1;
        }
        assert_eq!(taken, 3);
        assert_eq!(limit.next_at(usage), at(110));
        limit.take(&mut usage, at(110));
        assert_eq!(limit.next_at(usage), at(120));
        limit.give_back(&mut usage);
        assert_eq!(limit.next_at(usage), at(110));
        assert!(!usage.is_zero(at(129)) && usage.is_zero(at(130)));
    }

    #[test]
    fn no_time_of_a_limits_length_sees_more_than_twice_of_it() {
        let limit = limit(4, 20);
        let mut usage = Usage::default();
        let mut taken = Vec::new();
        for second in 0..200 {
            while limit.try_take(&mut usage, at(second)) {
                taken.push(second);
            }
        }
        for start in 0..180 {
            let within = taken.iter().filter(|taken| (start..start + 20).contains(*taken)).count();
            assert!(within <= 8, "{within} from {start} on");
        }
        assert_eq!(taken.len(), 4 + 199 / 5);
    }

    #[test]
    fn a_window_takes_its_events_whenever_they_come_and_begins_with_the_first_after_it() {
        let mut window = FixedWindow::new(2);
        let mut take = |millis| {
            window.advance(MonoTime::from_millis(millis));
            let has_room = window.has_room();
            if has_room {
                window.take();
            }
            has_room
        };
        assert_eq!([1_500, 2_499, 2_499].map(&mut take), [true, true, false]);
        assert_eq!([2_500, 3_499, 3_499, 3_500].map(&mut take), [true, true, false, true]);
    }
}
