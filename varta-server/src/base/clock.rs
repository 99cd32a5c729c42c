//! The only file that reads a clock.
//!
//! All other code takes a [`MonoTime`] as an argument, so that every rule about time can be tested with times
//! as literals.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::base::time::{MonoTime, WallTime, nanos};

/// More than passes between two readings of the clock in a row.
const CLOCK_DOUBT: Duration = Duration::from_micros(20);

/// The server's clock. Copies share the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// `CLOCK_MONOTONIC` at the start in nanoseconds, or a little less.
    host_start: u64,
}

impl Clock {
    /// Starts a clock: the present is [`MonoTime::START`].
    #[must_use]
    pub fn start() -> Self {
        let host_start = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Clock { start: Instant::now(), host_start: nanos(host_start) }
    }

    /// Goes on with the clock of another process of this host, by what that says of [`Clock::host_start`]. No time
    /// that the other has given is later than the present.
    #[must_use]
    pub(crate) fn resume(host_start: u64) -> Self {
        let host_now = nanos(Self::monotonic_now());
        let elapsed = Duration::from_nanos(host_now.saturating_sub(host_start)) + CLOCK_DOUBT;
        let now = Instant::now();
        Clock { start: now.checked_sub(elapsed).unwrap_or(now), host_start: host_start.min(host_now) }
    }

    /// `CLOCK_MONOTONIC` at the start, in nanoseconds.
    #[must_use]
    pub(crate) const fn host_start(&self) -> u64 {
        self.host_start
    }

    /// The present time; never goes back.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        MonoTime::from_nanos(nanos(self.start.elapsed()))
    }

    /// `CLOCK_MONOTONIC` at present.
    #[must_use]
    pub(crate) fn monotonic_now() -> Duration {
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
    }

    /// `CLOCK_MONOTONIC` at `at` in nanoseconds, which other processes of the host share. Errs on the early
    /// side.
    #[must_use]
    pub const fn host_nanos(&self, at: MonoTime) -> u64 {
        self.host_start.saturating_add(at.as_nanos())
    }

    /// `at` as an instant of the runtime, to sleep until it.
    ///
    /// A time out of the runtime's range becomes one within it, at least a day ahead.
    #[must_use]
    pub fn instant(&self, at: MonoTime) -> tokio::time::Instant {
        let offset = Duration::from_nanos(at.as_nanos());
        let instant =
            self.start.checked_add(offset).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
        tokio::time::Instant::from_std(instant)
    }

    /// The Unix time of the server's start in seconds, by the present setting of the wall clock.
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
    /// The fraction of a millisecond that `wall` leaves out. With it a moment has the same time of the wall
    /// clock whenever that is computed, and no later moment has an earlier one.
    fraction: Duration,
}

impl WallClock {
    /// The present moment.
    pub(crate) fn read(clock: Clock) -> Self {
        WallClock::new(clock.now(), wall_now())
    }

    /// The moment at which the clocks have these times.
    pub(crate) fn new(mono: MonoTime, wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let fraction = Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000));
        WallClock { mono, wall: WallTime::from(wall), fraction }
    }

    /// What the wall clock said, or will say, at `at`, as it counts at this moment.
    pub(crate) fn at(self, at: MonoTime) -> WallTime {
        let now = Duration::from_millis(self.wall.as_millis()) + self.fraction;
        let since = if at <= self.mono {
            now.saturating_sub(self.mono.since(at))
        } else {
            now.saturating_add(at.since(self.mono))
        };
        WallTime::default().after(since)
    }
}

/// `CLOCK_BOOTTIME`: the time since the host's boot, suspend included, as this process's time namespace has
/// it; `None` where the kernel does not have this clock.
pub(crate) fn since_boot() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

/// The present wall-clock time, for output and for state that outlives the server. May go back.
#[must_use]
pub fn wall_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_goes_on_with_it_and_never_before_it() {
        let clock = Clock::start();
        let before = clock.now();
        let other = Clock::resume(clock.host_start());
        let (now, after) = (other.now(), clock.now());
        assert!(before <= now && now <= after + CLOCK_DOUBT + Duration::from_secs(1), "{before:?} {now:?}");
        assert_eq!(other.host_start(), clock.host_start());
    }

    #[test]
    fn it_never_goes_back() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
    }

    #[test]
    fn the_past_and_the_future_have_a_time_of_the_wall_clock() {
        let clock = WallClock::new(MonoTime::from_secs(10), UNIX_EPOCH + Duration::from_secs(1_000));
        let at = |secs| clock.at(MonoTime::from_secs(secs)).as_millis();
        assert_eq!([at(0), at(9), at(10), at(11)], [990_000, 999_000, 1_000_000, 1_001_000]);
        assert_eq!(clock.at(MonoTime::NEVER), clock.wall.after(MonoTime::NEVER.since(clock.mono)));
    }

    #[test]
    fn a_moment_has_one_time_of_the_wall_clock_whenever_it_is_computed() {
        let later = |micros| {
            let elapsed = Duration::from_micros(micros);
            WallClock::new(MonoTime::START + elapsed, UNIX_EPOCH + Duration::from_millis(1_000) + elapsed)
        };
        let at = MonoTime::START + Duration::from_micros(1_700);
        for micros in (0..5_000).step_by(100) {
            assert_eq!(later(micros).at(at).as_millis(), 1_001, "computed after {micros} µs");
        }
    }

    #[test]
    fn a_moment_too_far_to_name_does_not_panic() {
        let clock = Clock::start();
        assert!(clock.instant(MonoTime::NEVER) > tokio::time::Instant::now());
    }
}
