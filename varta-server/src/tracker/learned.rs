//! What is learned of agents that promise nothing: how long each may be silent, by the beats that it sent.
//!
//! It stands beside the agents, by the numbers of their slots, and there is none of it where every agent is given the same
//! time.

use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Frame;

use super::Tracker;
use super::arrival::{ArrivalPolicy, Arrivals};
use super::session::Place;
use super::table::grow;
use super::verdict::Verdict;
use crate::time::{MonoTime, nanos};

/// What was learned of one agent.
#[derive(Clone, Debug)]
struct Agent {
    arrivals: Arrivals,
    /// What follows from it, in nanoseconds; `None` while that is nothing. Kept, because to find it takes longer than a
    /// beat, and who looks at many agents needs it of each.
    silence: Option<NonZeroU64>,
}

const _: () = assert!(size_of::<Agent>() <= 72, "what docs/DETECTION.md says that an agent takes");

impl Agent {
    /// No frame has a nonce beyond this one, so the next frame begins everything anew.
    fn unheard() -> Self {
        Agent { arrivals: Arrivals::new(MonoTime::START, u64::MAX, 0), silence: None }
    }
}

/// What was learned of all agents.
#[derive(Debug)]
pub(super) struct Learned {
    policy: ArrivalPolicy,
    /// By slot number; never grows when nothing is learned.
    agents: Vec<Agent>,
}

impl Learned {
    pub(super) fn new(policy: ArrivalPolicy) -> Self {
        Learned { policy, agents: Vec::new() }
    }

    /// Whether anything is learned of anybody.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.policy.learns()
    }

    /// How long an agent may be silent by what was learned of it.
    pub(super) fn stall_after(&self, number: u32) -> Option<Duration> {
        let silence = self.agents.get(number as usize)?.silence?;
        Some(Duration::from_nanos(silence.get()))
    }

    /// Learns from the next beat of an agent's only session.
    fn observe(&mut self, number: u32, frame: &Frame, at: MonoTime) {
        let index = number as usize;
        while self.agents.len() <= index {
            grow(&mut self.agents);
            self.agents.push(Agent::unheard());
        }
        let Agent { arrivals, silence } = &mut self.agents[index];
        arrivals.observe(at, frame.nonce, frame.timestamp);
        *silence =
            arrivals.stall_after(&self.policy).ok().and_then(|silence| NonZeroU64::new(nanos(silence)));
    }

    /// For how many agents there is room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.agents.capacity()
    }

    /// Forgets what was learned of an agent.
    pub(super) fn forget(&mut self, number: u32) {
        if let Some(agent) = self.agents.get_mut(number as usize) {
            *agent = Agent::unheard();
        }
    }
}

impl Tracker {
    /// Learns what there is to learn from a beat that was taken, when the agent's deadline was `due` before it.
    pub(super) fn learn(&mut self, number: u32, frame: &Frame, place: Place, at: MonoTime, due: MonoTime) {
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
    pub(super) fn unlearn(&mut self, number: u32) {
        if self.learned.is_on() {
            let due = self.deadline(number);
            self.learned.forget(number);
            self.bring_forward(number, due);
        }
    }

    /// Has an agent looked at sooner if its deadline, which was `due`, is earlier now. One that is later needs nothing: it is
    /// found when the agent is looked at.
    pub(super) fn bring_forward(&mut self, number: u32, due: MonoTime) {
        let is_awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        if is_awaited && self.deadline(number) < due {
            self.wheel.arm(number, self.first_look(number));
        }
    }
}
