//! The ports that remote agents have left.
//!
//! A beat from such a port is either late, or shows that two agents share an address and a pid.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::Frame;

use crate::base::time::MonoTime;
use crate::domain::beat::RemoteEndpoint;
use crate::domain::tracker::agents::session::Session;

/// The jitter of a network. A beat from a previous port is late if, by the clock of its session, it was sent
/// no later than this after the agent left the port.
const JITTER: Duration = Duration::from_millis(20);

/// The maximum number of previous ports of one agent.
const MAX_PREVIOUS_PORTS: usize = 16;
/// The maximum number of agents with previous ports. Beyond it a port is left without a record, and twins are
/// distinguished later, or not while that lasts.
const MAX_HISTORIES: usize = 16_384;
/// The minimum time between two removals of expired histories to make room.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A port that an agent has left.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct PreviousPort {
    pub(in crate::domain::tracker) lane: RemoteEndpoint,
    pub(in crate::domain::tracker) session: Session,
    /// The time of the last beat from it.
    pub(in crate::domain::tracker) last_beat: MonoTime,
    /// The time of the first beat from the next port.
    pub(in crate::domain::tracker) left_at: MonoTime,
    /// The number of beats of the agent accepted by then.
    pub(in crate::domain::tracker) beats: u64,
}

impl PreviousPort {
    pub(in crate::domain::tracker) fn was_sent_before_leaving(&self, frame: &Frame) -> bool {
        let after_last = Duration::from_nanos(frame.timestamp.saturating_sub(self.session.timestamp));
        self.last_beat + after_last <= self.left_at + JITTER
    }
}

/// The ports that agents left within the last stall timeout, in the order in which they left them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct PortHistory {
    pub(in crate::domain::tracker) by_agent: HashMap<u32, Vec<PreviousPort>>,
    swept_at: MonoTime,
}

impl PortHistory {
    pub(in crate::domain::tracker) fn remember(
        &mut self,
        number: u32,
        former: PreviousPort,
        at: MonoTime,
        kept: Duration,
    ) {
        if self.by_agent.len() >= MAX_HISTORIES && at.since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = at;
            self.by_agent.retain(|_, trail| trail.iter().any(|former| former.last_beat + kept > at));
        }
        if self.by_agent.len() >= MAX_HISTORIES && !self.by_agent.contains_key(&number) {
            return;
        }
        let trail = self.by_agent.entry(number).or_default();
        trail.retain(|known| known.lane != former.lane && known.last_beat + kept > at);
        // The oldest ports stay: of many senders that beat in turn, the first is the next to come back.
        if trail.len() < MAX_PREVIOUS_PORTS {
            trail.push(former);
        }
    }

    /// The index in an agent's history of a port that it left a short while ago.
    pub(in crate::domain::tracker) fn find(
        &self,
        number: u32,
        lane: RemoteEndpoint,
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
