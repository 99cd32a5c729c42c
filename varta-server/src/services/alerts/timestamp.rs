//! Time as alerts tell it: moments that other hosts, and the server after this one, understand.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::clock::wall_now;
use crate::base::time::{MonoTime, millis};

/// A moment by the wall clock, to the millisecond. Written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Wall(u64);

impl Wall {
    /// The end of the year 9999: what comes later has no name in RFC 3339.
    const LATEST: u64 = 253_402_300_799_999;

    pub(super) fn now() -> Self {
        Wall::from_system(wall_now())
    }

    pub(super) fn from_system(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Wall(millis(since).min(Self::LATEST))
    }

    pub(super) fn to_system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }

    pub(super) fn after(self, later: Duration) -> Self {
        Wall(self.0.saturating_add(millis(later)).min(Self::LATEST))
    }

    pub(super) fn before(self, earlier: Duration) -> Self {
        Wall(self.0.saturating_sub(millis(earlier)))
    }

    /// How long this is after `earlier`; zero when it is not after it.
    pub(super) fn since(self, earlier: Wall) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.to_system()).fmt(f)
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Wall::from_system(at))
    }
}

/// The present moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By which time is measured.
    pub(super) mono: MonoTime,
    /// By which it is told.
    pub(super) wall: Wall,
}

impl Moment {
    /// What the wall clock said at a moment of the past, as it goes now.
    pub(super) fn wall_at(self, at: MonoTime) -> Wall {
        self.wall.before(self.mono.since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_as_rfc_3339_and_is_read_again() {
        let at = Wall(1_795_449_600_123);
        assert_eq!(at.to_string(), "2026-11-23T16:00:00.123Z");
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Wall>(&json).unwrap(), at);
    }

    #[test]
    fn what_has_no_name_is_cut_to_what_has() {
        assert_eq!(Wall(u64::MAX).after(Duration::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Wall(0).before(Duration::from_secs(1)), Wall(0));
        assert!(serde_json::from_str::<Wall>("\"soon\"").is_err());
    }
}
