//! The only file that reads a clock.
//!
//! Everything else is handed a [`MonoTime`], so that every rule about time can be tested by writing the time down.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::base::time::{MonoTime, WallTime, nanos};

/// The server's clock: cheap to copy, and every copy has the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// What the host's monotonic clock said then, or a little before.
    host_start: u64,
}

impl Clock {
    /// Starts a clock: now is [`MonoTime::START`].
    #[must_use]
    pub fn start() -> Self {
        let host_start = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Clock { start: Instant::now(), host_start: nanos(host_start) }
    }

    /// The present moment. Never goes back.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        MonoTime::from_nanos(nanos(self.start.elapsed()))
    }

    /// What `CLOCK_MONOTONIC` says at `at`, in nanoseconds: a time that other processes know too. Rather a little early
    /// than late.
    #[must_use]
    pub const fn host_nanos(&self, at: MonoTime) -> u64 {
        self.host_start.saturating_add(at.as_nanos())
    }

    /// The runtime's name for `at`, to sleep until it.
    ///
    /// A moment too far away for the runtime's clock is cut to one that it can name, at least a day ahead.
    #[must_use]
    pub fn instant(&self, at: MonoTime) -> tokio::time::Instant {
        let offset = Duration::from_nanos(at.as_nanos());
        let instant =
            self.start.checked_add(offset).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
        tokio::time::Instant::from_std(instant)
    }

    /// Unix time of the server's start as the wall clock counts at this moment, in seconds.
    ///
    /// Added to a [`MonoTime`] in seconds it gives the Unix time of that moment.
    #[must_use]
    pub fn wall_start_seconds(&self) -> f64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        wall.as_secs_f64() - self.start.elapsed().as_secs_f64()
    }
}

/// One moment by both clocks: by it other moments of the monotonic clock have a time of the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    /// By which durations are measured.
    pub(crate) mono: MonoTime,
    pub(crate) wall: WallTime,
}

impl WallClock {
    /// The present moment.
    pub(crate) fn read(clock: Clock) -> Self {
        WallClock { mono: clock.now(), wall: WallTime::from(wall_now()) }
    }

    /// What the wall clock said, or will say, at `at`, as it counts at this moment.
    pub(crate) fn at(self, at: MonoTime) -> WallTime {
        if at <= self.mono {
            self.wall.before(self.mono.since(at))
        } else {
            self.wall.after(at.since(self.mono))
        }
    }
}

/// The present moment by the wall clock: for what people are told and what outlives this server. It may go back.
#[must_use]
pub fn wall_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
    }

    #[test]
    fn the_past_and_the_future_have_a_time_of_the_wall_clock() {
        let wall = WallTime::from(UNIX_EPOCH + Duration::from_secs(1_000));
        let clock = WallClock { mono: MonoTime::from_secs(10), wall };
        let at = |secs| clock.at(MonoTime::from_secs(secs)).as_millis();
        assert_eq!([at(0), at(9), at(10), at(11)], [990_000, 999_000, 1_000_000, 1_001_000]);
        assert_eq!(clock.at(MonoTime::NEVER), wall.after(MonoTime::NEVER.since(clock.mono)));
    }

    #[test]
    fn a_moment_too_far_to_name_does_not_panic() {
        let clock = Clock::start();
        assert!(clock.instant(MonoTime::NEVER) > tokio::time::Instant::now());
    }
}
