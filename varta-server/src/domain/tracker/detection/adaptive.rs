//! The arrival histories of agents, and the adaptive timeouts that follow from them.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::Frame;

use crate::base::time::{MonoTime, nanos};
use crate::domain::tracker::agents::table::grow;
use crate::domain::tracker::detection::arrival::ArrivalPolicy;
use crate::domain::tracker::detection::arrival::estimator::Arrivals;

/// The arrival history of one agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct ArrivalHistory {
    arrivals: Arrivals,
    /// The timeout that follows from it, in nanoseconds; `None` while there is none. It is stored, because to
    /// compute it takes longer than to handle a beat, and a check of many agents needs that of each.
    silence: Option<NonZeroU64>,
}

impl ArrivalHistory {
    /// No frame has a nonce beyond this one, so the next frame starts a new history.
    fn unheard() -> Self {
        ArrivalHistory { arrivals: Arrivals::new(MonoTime::START, u64::MAX, 0), silence: None }
    }
}

/// The arrival histories of all agents.
#[derive(Debug)]
pub(in crate::domain::tracker) struct ArrivalHistories {
    policy: ArrivalPolicy,
    /// By slot number; stays empty under a fixed policy.
    agents: Vec<ArrivalHistory>,
}

impl ArrivalHistories {
    pub(in crate::domain::tracker) fn new(policy: ArrivalPolicy) -> Self {
        ArrivalHistories { policy, agents: Vec::new() }
    }

    /// What was learned of the agent in each slot.
    pub(in crate::domain::tracker) fn all(&self) -> &[ArrivalHistory] {
        &self.agents
    }

    /// Goes on with what another tracker learned under this policy.
    pub(in crate::domain::tracker) fn resume(policy: ArrivalPolicy, agents: Vec<ArrivalHistory>) -> Self {
        ArrivalHistories { policy, agents }
    }

    /// Whether the policy learns at all.
    #[inline]
    pub(in crate::domain::tracker) fn is_on(&self) -> bool {
        self.policy.learns()
    }

    /// The adaptive timeout of an agent.
    pub(in crate::domain::tracker) fn stall_after(&self, number: u32) -> Option<Duration> {
        let silence = self.agents.get(number as usize)?.silence?;
        Some(Duration::from_nanos(silence.get()))
    }

    /// Observes the next beat of an agent's only session.
    pub(in crate::domain::tracker) fn observe(&mut self, number: u32, frame: &Frame, at: MonoTime) {
        let index = number as usize;
        while self.agents.len() <= index {
            grow(&mut self.agents);
            self.agents.push(ArrivalHistory::unheard());
        }
        let ArrivalHistory { arrivals, silence } = &mut self.agents[index];
        arrivals.observe(at, frame.nonce, frame.timestamp);
        *silence =
            arrivals.stall_after(&self.policy).ok().and_then(|silence| NonZeroU64::new(nanos(silence)));
    }

    /// The number of agents for which there is room.
    #[cfg(test)]
    pub(in crate::domain::tracker) fn room(&self) -> usize {
        self.agents.capacity()
    }

    /// Forgets the history of an agent.
    pub(in crate::domain::tracker) fn forget(&mut self, number: u32) {
        if let Some(agent) = self.agents.get_mut(number as usize) {
            *agent = ArrivalHistory::unheard();
        }
    }
}
