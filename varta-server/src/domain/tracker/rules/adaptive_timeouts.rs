//! What is learned of agents that promise nothing: how long each may be silent, by the beats that it sent.
//!
//! It stands beside the agents, by the numbers of their slots, and there is none of it where every agent is given the same
//! time.

use varta_proto::Frame;

use crate::base::time::MonoTime;
use crate::domain::tracker::agents::session::Place;
use crate::domain::tracker::detection::adaptive::Agent;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

const _: () = assert!(size_of::<Agent>() <= 72, "what docs/DETECTION.md says that an agent takes");

impl Tracker {
    /// Learns what there is to learn from a beat that was taken, when the agent's deadline was `due` before it.
    pub(in crate::domain::tracker) fn learn(
        &mut self,
        number: u32,
        frame: &Frame,
        place: Place,
        at: MonoTime,
        due: MonoTime,
    ) {
        let rest = self.agents.rest(number);
        // What is seen of a page comes at the pace of the looks, and not at that of the agent.
        if rest.promised().is_some() || self.agents.slot(number).has_page() {
            return;
        }
        match place {
            Place::Next { .. } if !self.agents.slot(number).has_several(rest) => {
                self.learned.observe(number, frame, at);
            }
            Place::Next { .. } | Place::Opens => self.learned.forget(number),
            Place::Duplicate | Place::OutOfOrder => return,
        }
        self.bring_forward(number, due);
    }

    /// Forgets what was learned of an agent, because it is another session or somebody else from now on.
    pub(in crate::domain::tracker) fn unlearn(&mut self, number: u32) {
        if self.learned.is_on() {
            let due = self.deadline(number);
            self.learned.forget(number);
            self.bring_forward(number, due);
        }
    }

    /// Has an agent looked at sooner if its deadline, which was `due`, is earlier now. One that is later needs nothing: it is
    /// found when the agent is looked at.
    pub(in crate::domain::tracker) fn bring_forward(&mut self, number: u32, due: MonoTime) {
        let is_awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        if is_awaited && self.deadline(number) < due {
            self.wheel.arm(number, self.first_look(number));
        }
    }
}
