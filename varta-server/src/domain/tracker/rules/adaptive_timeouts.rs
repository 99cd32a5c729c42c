//! Adaptive timeouts: how long each agent that requests no timeout may be silent, by the beats that it sent.
//!
//! They are stored apart from the agents, by slot number, and not at all where every agent has the same
//! timeout.

use varta_proto::Frame;

use crate::base::time::MonoTime;
use crate::domain::tracker::agents::session::FramePosition;
use crate::domain::tracker::detection::adaptive::ArrivalHistory;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

const _: () = assert!(size_of::<ArrivalHistory>() <= 72, "what docs/DETECTION.md says that an agent takes");

impl Tracker {
    /// Learns from a beat that was handled, when the agent's deadline was `due` before it.
    pub(super) fn learn(
        &mut self,
        number: u32,
        frame: &Frame,
        place: FramePosition,
        at: MonoTime,
        due: MonoTime,
    ) {
        let rest = self.agents.rest(number);
        // What is seen of a page comes at the pace of its reads, and not at that of the agent.
        if rest.promised().is_some() || self.agents.slot(number).has_page() {
            return;
        }
        match place {
            FramePosition::Next { .. } if !self.agents.slot(number).has_several(rest) => {
                self.learned.observe(number, frame, at);
            }
            FramePosition::Next { .. } | FramePosition::Opens => self.learned.forget(number),
            FramePosition::Duplicate | FramePosition::OutOfOrder => return,
        }
        self.bring_forward(number, due);
    }

    /// Forgets what was learned of an agent, because another session or another sender continues it.
    pub(super) fn unlearn(&mut self, number: u32) {
        if self.learned.is_on() {
            let due = self.deadline(number);
            self.learned.forget(number);
            self.bring_forward(number, due);
        }
    }

    /// Brings the check of an agent forward if its deadline, which was `due`, is earlier now. A later
    /// deadline needs nothing: the next check finds it.
    pub(super) fn bring_forward(&mut self, number: u32, due: MonoTime) {
        let is_awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        if is_awaited && self.deadline(number) < due {
            self.wheel.arm(number, self.first_look(number));
        }
    }
}
