//! Local times in a time zone, with the days on which its clocks are set.

use crate::base::time_zone::{Start, TimeZone};
use crate::domain::schedule::pattern::Pattern;

/// Nothing is looked for from here on: 2200-01-01, in seconds since 1970.
pub(super) const END: i64 = 7_258_118_400;

/// What becomes of local times that a clock passes over or shows twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockChanges {
    /// Whether what was passed over is due once, right after it.
    caught_up: bool,
    /// Whether what is shown twice is due both times.
    repeated: bool,
    /// What sets a clock further than this is no change of the clocks but of the calendar: what was passed over is
    /// not due, and what is shown twice is due twice. In seconds.
    furthest: i64,
}

impl ClockChanges {
    /// cron, for what has no `*` in its minutes and hours.
    pub(super) const CRON_FIXED: Self =
        ClockChanges { caught_up: true, repeated: false, furthest: 3 * 3_600 };
    /// cron, for the rest.
    pub(super) const CRON_WILD: Self = ClockChanges { caught_up: false, repeated: true, furthest: 3 * 3_600 };
    /// Timers of systemd.
    pub(super) const SYSTEMD: Self = ClockChanges { caught_up: false, repeated: false, furthest: i64::MAX };
}

/// A pattern in a time zone.
#[derive(Clone, Debug)]
pub(super) struct Zoned {
    pattern: Pattern,
    zone: TimeZone,
    changes: ClockChanges,
}

impl Zoned {
    pub(super) fn new(pattern: Pattern, zone: TimeZone, changes: ClockChanges) -> Self {
        Zoned { pattern, zone, changes }
    }

    pub(super) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first moment after `at` that is due, in seconds since 1970.
    pub(super) fn next_after(&self, at: i64) -> Option<i64> {
        let ClockChanges { caught_up, repeated, furthest } = self.changes;
        let mut from = at.saturating_add(1);
        while from < END {
            let stretch = self.zone.stretch(from);
            let mut local = from.saturating_add(stretch.offset);
            if let Some(Start { at: start, offset_before }) = stretch.start {
                let (before, set_by) = (start + offset_before, stretch.offset - offset_before);
                let is_set = set_by != 0 && set_by.abs() <= furthest;
                if is_set
                    && caught_up
                    && from == start
                    && self.pattern.first(before, before + set_by).is_some()
                {
                    return Some(start);
                }
                if is_set && !repeated {
                    local = local.max(before);
                }
            }
            let end = stretch.end.unwrap_or(END).min(END);
            if let Some(found) = self.pattern.first(local, end + stretch.offset) {
                return Some(found - stretch.offset);
            }
            from = end;
        }
        None
    }
}
