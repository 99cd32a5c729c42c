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
    pub(super) fn observe(
        &mut self,
        number: u32,
        frame: &Frame,
        place: FramePosition,
        at: MonoTime,
        due: MonoTime,
    ) {
        let rest = self.agents.rest(number);
        // What is seen of a page comes at the pace of its reads, and not at that of the agent.
        if rest.requested_timeout().is_some() || self.agents.slot(number).has_page() {
            return;
        }
        match place {
            FramePosition::Next { .. } if !self.agents.slot(number).has_several(rest) => {
                self.adaptive_timeouts.observe(number, frame, at);
            }
            FramePosition::Next { .. } | FramePosition::Opens => self.adaptive_timeouts.forget(number),
            FramePosition::Duplicate | FramePosition::OutOfOrder => return,
        }
        self.reschedule_earlier(number, due);
    }

    /// Forgets what was learned of an agent, because another session or another sender continues it.
    pub(super) fn forget_arrivals(&mut self, number: u32) {
        if self.adaptive_timeouts.is_on() {
            let due = self.deadline(number);
            self.adaptive_timeouts.forget(number);
            self.reschedule_earlier(number, due);
        }
    }

    /// Brings the check of an agent forward if its deadline, which was `due`, is earlier now. A later
    /// deadline needs nothing: the next check finds it.
    pub(super) fn reschedule_earlier(&mut self, number: u32, due: MonoTime) {
        let is_awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        if is_awaited && self.deadline(number) < due {
            self.wheel.arm(number, self.first_check(number));
        }
    }
}
