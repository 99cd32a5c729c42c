//! The only file that reads a clock.
//!
//! Everything else is handed a [`MonoTime`], so that every rule about time can be tested by writing the time down.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::base::time::{MonoTime, nanos};

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

    /// What the wall clock said at `at`, as it counts at this moment.
    #[must_use]
    pub fn wall(&self, at: MonoTime) -> SystemTime {
        let (now, wall_now) = (self.now(), wall_now());
        let wall =
            if at <= now { wall_now.checked_sub(now.since(at)) } else { wall_now.checked_add(at.since(now)) };
        wall.unwrap_or(wall_now)
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
    fn a_moment_too_far_to_name_does_not_panic() {
        let clock = Clock::start();
        assert!(clock.instant(MonoTime::NEVER) > tokio::time::Instant::now());
    }
}
