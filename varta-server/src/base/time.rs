//! Time as a value.
//!
//! The tracker takes the time as an argument and never reads a clock; this is the type of that argument. Only
//! `clock` makes one from a real clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time on the server's monotonic clock: nanoseconds since the server started.
///
/// ```
/// use std::time::Duration;
/// use varta_server::time::MonoTime;
///
/// let beat = MonoTime::from_secs(30);
/// assert_eq!(beat + Duration::from_millis(500), MonoTime::from_millis(30_500));
/// assert_eq!(MonoTime::from_secs(31) - beat, Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The start of the server.
    pub const START: MonoTime = MonoTime(0);
    /// Later than any time that is ever reached: 584 years after the start.
    pub const NEVER: MonoTime = MonoTime(u64::MAX);

    /// `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        MonoTime(nanos)
    }

    /// `millis` milliseconds after the start; saturates at [`MonoTime::NEVER`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        MonoTime(millis.saturating_mul(1_000_000))
    }

    /// `secs` seconds after the start; saturates at [`MonoTime::NEVER`].
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        MonoTime(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time `earlier` before this one; not before the start.
    #[must_use]
    pub fn before(self, earlier: Duration) -> MonoTime {
        MonoTime(self.0.saturating_sub(nanos(earlier)))
    }

    /// It by a clock that started `by` nanoseconds after the one of before; not before that start.
    #[must_use]
    pub(crate) fn shifted(self, by: i128) -> MonoTime {
        let nanos = (i128::from(self.0) - by).clamp(0, i128::from(u64::MAX));
        MonoTime(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The duration from `earlier` to this time; zero if `earlier` is not before it.
    #[must_use]
    pub const fn since(self, earlier: MonoTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Nanoseconds of a duration, at most `u64::MAX` (584 years).
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds of a duration, at most `u64::MAX`: a field of logs.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The first moment that RFC 3339 cannot write, since 1970: the year 10000 begins.
pub(crate) const END_OF_RFC3339: Duration = Duration::from_secs(253_402_300_800);

/// A wall-clock time in RFC 3339 with milliseconds: `2026-11-23T13:12:02.000Z`, always 24 characters. Times
/// out of range are clamped.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    WallTime::from(at).to_string()
}

/// Reads a moment in UTC, with a `Z` behind it and any fraction of a second.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse_rfc3339(text: &str) -> Result<SystemTime, humantime::TimestampError> {
    humantime::parse_rfc3339(text)
}

/// A moment of the wall clock in whole milliseconds, from 1970 to the end of the year 9999: what RFC 3339 can
/// write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WallTime(u64);

impl WallTime {
    const MAX: u64 = END_OF_RFC3339.as_secs() * 1_000 - 1;

    /// Reads a moment in UTC as RFC 3339 writes it, with a `Z` behind it and any fraction of a second.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, humantime::TimestampError> {
        parse_rfc3339(text).map(WallTime::from)
    }

    /// Seconds since 1970; not after the year 9999.
    pub(crate) fn from_seconds(seconds: i64) -> Self {
        WallTime(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000).min(Self::MAX))
    }

    /// Whole seconds since 1970.
    pub(crate) fn as_seconds(self) -> i64 {
        i64::try_from(self.0 / 1_000).unwrap_or(i64::MAX)
    }

    /// Milliseconds since 1970.
    pub(crate) const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment that is `later` after this one; not after the year 9999.
    pub(crate) fn after(self, later: Duration) -> Self {
        WallTime(self.0.saturating_add(millis(later)).min(Self::MAX))
    }

    /// The moment that is `earlier` before this one; not before 1970.
    pub(crate) fn before(self, earlier: Duration) -> Self {
        WallTime(self.0.saturating_sub(millis(earlier)))
    }

    /// How long this is after `earlier`; zero when it is not after it.
    pub(crate) const fn since(self, earlier: WallTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Cuts off what is finer than a millisecond, and what RFC 3339 cannot write to the nearest that it can.
impl From<SystemTime> for WallTime {
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        WallTime(millis(since).min(Self::MAX))
    }
}

impl From<WallTime> for SystemTime {
    fn from(at: WallTime) -> Self {
        UNIX_EPOCH + Duration::from_millis(at.0)
    }
}

/// RFC 3339 in UTC, with milliseconds.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(SystemTime::from(*self)).fmt(f)
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).map(WallTime::from).map_err(serde::de::Error::custom)
    }
}

/// Saturates at [`MonoTime::NEVER`].
impl Add<Duration> for MonoTime {
    type Output = MonoTime;

    fn add(self, rhs: Duration) -> MonoTime {
        MonoTime(self.0.saturating_add(nanos(rhs)))
    }
}

/// The same as [`MonoTime::since`].
impl Sub for MonoTime {
    type Output = Duration;

    fn sub(self, rhs: MonoTime) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Display for MonoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(MonoTime::NEVER + Duration::from_secs(1), MonoTime::NEVER);
        assert_eq!(MonoTime::START - MonoTime::from_secs(1), Duration::ZERO);
        assert_eq!(MonoTime::from_secs(u64::MAX), MonoTime::NEVER);
    }

    #[test]
    fn a_moment_of_the_wall_clock_has_a_text_whenever_it_is() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(1_234)), "1970-01-01T00:00:01.234Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(1 << 40)), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_wall_time_reads_as_rfc_3339_and_is_read_again() {
        let at = WallTime(1_795_449_600_123);
        assert_eq!(at.to_string(), "2026-11-23T16:00:00.123Z");
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<WallTime>(&json).unwrap(), at);
        assert!(serde_json::from_str::<WallTime>("\"soon\"").is_err());
        assert_eq!(WallTime::from(SystemTime::from(at) + Duration::from_nanos(999_999)), at);
    }

    #[test]
    fn a_wall_time_stays_within_what_rfc_3339_can_write() {
        assert_eq!(WallTime(u64::MAX).after(Duration::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(WallTime(0).before(Duration::from_secs(1)), WallTime(0));
        assert_eq!(WallTime(1).since(WallTime(2)), Duration::ZERO);
    }

    #[test]
    fn it_prints_seconds_with_nanoseconds() {
        assert_eq!(MonoTime::from_nanos(1_500_000_001).to_string(), "1.500000001s");
    }
}
