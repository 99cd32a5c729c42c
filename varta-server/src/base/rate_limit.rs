//! How many beats a second are taken: the generic cell rate algorithm (ITU-T I.371), one word of state for each limit.

use crate::base::time::MonoTime;

/// A second's worth of beats may come at once.
const BURST_NANOS: u64 = 1_000_000_000;

/// A limit in beats a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    /// Nanoseconds that one beat uses up; 0 when there is no limit.
    cost: u64,
}

/// What has been used of a limit: the moment at which all of it will be free again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage(u64);

impl RateLimit {
    /// At most `per_second` beats a second over time, and as many at once. 0 is no limit.
    pub(crate) fn per_second(per_second: u32) -> Self {
        RateLimit { cost: 1_000_000_000_u64.checked_div(u64::from(per_second)).unwrap_or(0) }
    }

    /// Whether one more beat is within the limit; if so it is counted.
    #[inline]
    pub(crate) fn try_take(self, usage: &mut Usage, now: MonoTime) -> bool {
        if self.cost == 0 {
            return true;
        }
        let now = now.as_nanos();
        let free_at = usage.0.max(now) + self.cost;
        if free_at - now > BURST_NANOS {
            return false;
        }
        usage.0 = free_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_beats_may_come_at_once_and_then_one_at_a_time() {
        let limit = RateLimit::per_second(10);
        let mut usage = Usage::default();
        let now = MonoTime::from_secs(50);
        let taken = (0..100).filter(|_| limit.try_take(&mut usage, now)).count();
        assert_eq!(taken, 10);
        assert!(!limit.try_take(&mut usage, MonoTime::from_millis(50_099)));
        assert!(limit.try_take(&mut usage, MonoTime::from_millis(50_100)));
        assert!(!limit.try_take(&mut usage, MonoTime::from_millis(50_100)));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut usage = Usage::default();
        assert!((0..10_000).all(|_| RateLimit::per_second(0).try_take(&mut usage, MonoTime::START)));
    }
}
