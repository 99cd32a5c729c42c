use std::collections::HashMap;
use std::time::Duration;

use varta_proto::Frame;

use crate::base::time::MonoTime;
use crate::domain::beat::Lane;
use crate::domain::tracker::agents::session::Session;

/// What comes from a port that was left was overtaken on the way if, by the clock of its session, it was sent before that,
/// give or take the jitter of a network.
const JITTER: Duration = Duration::from_millis(20);

/// Ports that are remembered for one agent at once.
const MOST_FORMER: usize = 16;
/// Agents that have left a port a short while ago. Beyond it a port is left without being remembered, and twins are told
/// apart later, or not while that lasts.
const MOST_TRAILS: usize = 16_384;
/// How often trails that have gone cold are swept out to make room.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A port that an agent has left.
#[derive(Clone, Copy, Debug)]
pub(in crate::domain::tracker) struct Former {
    pub(in crate::domain::tracker) lane: Lane,
    pub(in crate::domain::tracker) session: Session,
    /// The last beat from it.
    pub(in crate::domain::tracker) last_beat: MonoTime,
    /// When the first beat came from the next port.
    pub(in crate::domain::tracker) left_at: MonoTime,
    /// How many beats of the agent had been accepted by then.
    pub(in crate::domain::tracker) beats: u64,
}

impl Former {
    pub(in crate::domain::tracker) fn was_sent_before_leaving(&self, frame: &Frame) -> bool {
        let after_last = Duration::from_nanos(frame.timestamp.saturating_sub(self.session.timestamp));
        self.last_beat + after_last <= self.left_at + JITTER
    }
}

/// The ports that agents left within the last stall-after, in the order in which they left them.
#[derive(Debug, Default)]
pub(in crate::domain::tracker) struct Trails {
    pub(in crate::domain::tracker) by_agent: HashMap<u32, Vec<Former>>,
    swept_at: MonoTime,
}

impl Trails {
    pub(in crate::domain::tracker) fn remember(
        &mut self,
        number: u32,
        former: Former,
        at: MonoTime,
        kept: Duration,
    ) {
        if self.by_agent.len() >= MOST_TRAILS && at.since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = at;
            self.by_agent.retain(|_, trail| trail.iter().any(|former| former.last_beat + kept > at));
        }
        if self.by_agent.len() >= MOST_TRAILS && !self.by_agent.contains_key(&number) {
            return;
        }
        let trail = self.by_agent.entry(number).or_default();
        trail.retain(|known| known.lane != former.lane && known.last_beat + kept > at);
        // Those that left first stay: of many that beat in turn, the first is the next to come back.
        if trail.len() < MOST_FORMER {
            trail.push(former);
        }
    }

    /// The place in an agent's trail of a port that it left, if that was a short while ago.
    pub(in crate::domain::tracker) fn find(
        &self,
        number: u32,
        lane: Lane,
        at: MonoTime,
        kept: Duration,
    ) -> Option<usize> {
        let trail = self.by_agent.get(&number)?;
        trail.iter().position(|former| former.lane == lane && former.last_beat + kept > at)
    }

    pub(in crate::domain::tracker) fn forget(&mut self, number: u32) {
        self.by_agent.remove(&number);
    }
}
