//! The progress of an agent whose payload is a counter that must move.
//!
//! A beat compares its payload with the one before, on the cache line that it writes anyway, and notes the time when
//! they differ. That the counter has stood for too long is found out with the timer wheel, and proven by a beat that
//! comes after that time and has the same payload still: an agent that is only silent is not told to stand still.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::Frame;

use crate::base::time::MonoTime;
use crate::domain::rules::ProgressRule;
use crate::domain::tracker::agents::agent::AgentHot;
use crate::domain::tracker::agents::slot_flags::SlotFlags;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The binary logarithm of the unit in which the time of a movement is kept, in nanoseconds: 8.4 ms. The 32 bits for it
/// last for 417 days, longer than any counter [may stand](crate::base::limits::MAX_DURATION).
const UNIT: u32 = 23;

/// How the progress of an agent is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct ProgressWatch {
    /// How long its counter may stand as it said itself, if it said that it has one; zero for the default.
    pub(in crate::domain::tracker) declared: Option<Duration>,
    /// What a rule says for its name.
    pub(in crate::domain::tracker) ruled: ProgressRule,
    /// Since when the counter has stood, as far as this server knows, while the agent is stalled for that.
    pub(in crate::domain::tracker) stands_since: MonoTime,
    /// For how long it had stood before that.
    pub(in crate::domain::tracker) stood_before: Duration,
}

impl ProgressWatch {
    /// For how long the counter of an agent that is stalled for it has stood at a time.
    pub(in crate::domain::tracker) fn stood_for(&self, at: MonoTime) -> Duration {
        at.since(self.stands_since) + self.stood_before
    }

    /// How long the counter may stand; `None` if there is none, or it is not watched.
    pub(in crate::domain::tracker) fn limit(&self, default: Duration) -> Option<Duration> {
        let given = |time: &Duration| !time.is_zero();
        let declared = self.declared.filter(given);
        let is_watched = self.ruled.is_payload.unwrap_or(self.declared.is_some());
        is_watched.then(|| self.ruled.after.or(declared).unwrap_or(default))
    }
}

impl AgentHot {
    /// Whether the agent has one session and no counter, as nearly all have.
    #[inline]
    pub(in crate::domain::tracker) const fn is_plain(&self) -> bool {
        !self.flags.has(SlotFlags::SESSIONS | SlotFlags::COUNTS | SlotFlags::COUNTER_DUE)
    }

    /// Whether the agent has one session, and a counter that is not due.
    pub(in crate::domain::tracker) const fn is_plainly_counting(&self) -> bool {
        self.counts() && !self.flags.has(SlotFlags::SESSIONS | SlotFlags::COUNTER_DUE)
    }

    /// Whether its payload is a counter that must move.
    pub(in crate::domain::tracker) const fn counts(&self) -> bool {
        self.flags.has(SlotFlags::COUNTS)
    }

    /// Has the counter watched from the last beat on, or no longer.
    pub(in crate::domain::tracker) fn set_counts(&mut self, counts: bool) {
        if counts == self.counts() {
            return;
        }
        if matches!(self.verdict, Some(Verdict::Up(_) | Verdict::Unknown)) {
            self.fell_after = unit_of(self.last_beat);
        }
        if !counts && self.is_stuck() {
            // The next beat says that it is up.
            self.fell_after = 0;
        }
        let is_due = counts && self.is_counter_due();
        self.flags = self.flags.with(SlotFlags::COUNTS, counts).with(SlotFlags::COUNTER_DUE, is_due);
    }

    /// Whether the counter has stood for as long as it may.
    pub(in crate::domain::tracker) const fn is_counter_due(&self) -> bool {
        self.flags.has(SlotFlags::COUNTER_DUE)
    }

    /// Sets whether the counter has stood for as long as it may.
    pub(in crate::domain::tracker) const fn set_counter_due(&mut self, is_due: bool) {
        self.flags = self.flags.with(SlotFlags::COUNTER_DUE, is_due);
    }

    /// Whether it is stalled because its counter stands, which no beat ends but one that moves it.
    pub(in crate::domain::tracker) fn is_stuck(&self) -> bool {
        self.is_counter_due() && self.verdict == Some(Verdict::Stalled)
    }

    /// Whether a frame moves the counter. A last word is none of it.
    #[inline]
    pub(in crate::domain::tracker) const fn is_moved_by(&self, frame: &Frame) -> bool {
        frame.payload != self.payload && !frame.is_terminal()
    }

    /// Notes the time if a frame moves the counter.
    pub(in crate::domain::tracker) fn note_counter(&mut self, frame: &Frame, at: MonoTime) {
        if self.counts()
            && self.is_moved_by(frame)
            && matches!(self.verdict, Some(Verdict::Up(_) | Verdict::Unknown))
        {
            self.fell_after = unit_of(at);
        }
    }

    /// Gives the counter of an agent that is up again all its time from the last beat on.
    pub(in crate::domain::tracker) fn begin_counting(&mut self) {
        // Also where nobody has said yet, to this server, that it counts.
        self.set_counter_due(false);
        if self.counts() {
            self.fell_after = unit_of(self.last_beat);
        }
    }

    /// When the counter moved last, or the agent came up: at most a unit later than that, and not before it. Only of an
    /// agent that is neither stalled nor down nor gone.
    pub(in crate::domain::tracker) fn moved_at(&self) -> MonoTime {
        let units_ago = unit_of(self.last_beat).wrapping_sub(self.fell_after);
        let units = (self.last_beat.as_nanos() >> UNIT).saturating_sub(u64::from(units_ago));
        MonoTime::from_nanos((units + 1) << UNIT).min(self.last_beat)
    }
}

/// A time in the units that are kept, the number of which wraps.
const fn unit_of(at: MonoTime) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    let units = (at.as_nanos() >> UNIT) as u32;
    units
}
