//! False positives: verdicts `stalled` on agents that were beating all along.
//!
//! A false positive shows afterwards, by the beat that takes the verdict back. Beats of the silence are
//! missing before it, so they were sent and did not arrive; or by the clock of its session it was sent before
//! the verdict was given, and arrived late. An agent that sent nothing meanwhile was silent, and the verdict
//! was right; also when the first beats after the silence are lost, which are few compared to those that it
//! would have sent. What cannot be decided, because the clock stands still or another session has begun, is
//! no false positive.

use std::time::Duration;

use varta_proto::Frame;

use crate::base::time::{MonoTime, millis};
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot};
use crate::domain::tracker::agents::session::{Newest, Session};
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl AgentHot {
    /// Records when the agent was called stalled, down or gone.
    pub(super) fn note_fallen(&mut self, now: MonoTime) {
        self.fell_after = u32::try_from(millis(now.since(self.last_beat))).unwrap_or(0);
    }

    /// How long the agent has been called stalled by mistake, if `frame`, which arrives at `at`, shows that.
    /// Called before the frame's place is looked for.
    pub(super) fn find_mistake(&self, rest: &AgentCold, frame: &Frame, at: MonoTime) -> Option<Duration> {
        if self.verdict != Some(Verdict::Stalled) || self.fell_after == 0 {
            return None;
        }
        let stalled_at = self.last_beat + Duration::from_millis(u64::from(self.fell_after));
        let (session, heard_at, lost) = self.followed(rest, frame, at)?;
        if session == Session::UNHEARD {
            return None;
        }
        let clock_goes = frame.timestamp > session.timestamp;
        let was_late = clock_goes && session.sent(heard_at, frame, at) < i128::from(stalled_at.as_nanos());
        let were_lost = lost > 0 && !self.has_page() && beats_on_time(session, frame, lost);
        (were_lost || was_late).then(|| at.since(stalled_at))
    }

    /// The session that a frame is the next of, the time of its newest frame, and the number of frames
    /// missing in between.
    fn followed(&self, rest: &AgentCold, frame: &Frame, at: MonoTime) -> Option<(Session, MonoTime, u64)> {
        match &rest.extra {
            Some(extra) if self.has_others() => {
                let mut session = self.session;
                let newest = Newest { session: &mut session, heard_at: self.last_beat };
                extra.sessions.followed(&newest, frame, at, self.handles())
            }
            Some(_) | None => {
                let (lost, _) = self.session.followed_by(frame)?;
                Some((self.session, self.last_beat, lost))
            }
        }
    }
}

/// Whether a session sent at least half as many frames up to `frame` as at its pace before, with `lost` that
/// are missing. A session without a pace yet counts as one that did.
fn beats_on_time(session: Session, frame: &Frame, lost: u64) -> bool {
    let Session { nonce, timestamp } = session;
    let intervals = nonce.saturating_sub(1);
    if intervals == 0 || timestamp == 0 {
        return true;
    }
    let time = u128::from(frame.timestamp.saturating_sub(timestamp));
    let frames = u128::from(lost) + 1;
    // Multiplied instead of divided: 2 × frames ÷ time ≥ intervals ÷ timestamp.
    let sent = (2 * frames).saturating_mul(u128::from(timestamp));
    sent >= time.saturating_mul(u128::from(intervals))
}

impl AgentCold {
    /// The number of false positives about the agent.
    pub(in crate::domain::tracker) fn false_positives(&self) -> u32 {
        self.extra.as_ref().map_or(0, |extra| extra.false_positives)
    }

    /// Counts more false positives.
    pub(super) fn add_mistakes(&mut self, more: u32) {
        if more > 0 {
            let extra = self.extra.get_or_insert_default();
            extra.false_positives = extra.false_positives.saturating_add(more);
        }
    }
}

impl Tracker {
    /// Counts a false positive that has just been taken back, and notes it in the newest transition.
    pub(super) fn note_mistake(&mut self, number: u32, lasted: Duration) {
        self.agents.rest_mut(number).add_mistakes(1);
        self.statistics.false_positives += 1;
        if let Some(recovered) = self.transitions.back_mut() {
            recovered.mistake = Some(lasted);
        }
    }
}
