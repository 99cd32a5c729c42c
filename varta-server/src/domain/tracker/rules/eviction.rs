//! Admission and eviction: an agent takes a slot, and is forgotten.

use crate::domain::beat::Origin;
use crate::domain::outcome::FrameOutcome;
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot, IndexKey};
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::request::TrackerRequest;
use crate::domain::tracker::agents::snapshot::{ForgetReason, Forgotten, RegistryChange};
use crate::domain::tracker::agents::table::MAX_AGENTS;
use crate::domain::tracker::policy::Policy;
use crate::domain::tracker::state::Tracker;

impl Tracker {
    /// Makes room for one more agent from `origin`: evicts agents that are down or gone, the oldest of them
    /// first. Returns the outcome of the beat where there is no room.
    pub(super) fn make_room(&mut self, origin: Origin) -> Result<(), FrameOutcome> {
        let Policy { max_agents_per_source: most, max_plain_agents, .. } = self.policy;
        if let Origin::Udp(address) = origin
            && (most > 0 && self.sources.plain_agents_near(address) >= most
                || self.sources.plain_agents() >= max_plain_agents)
        {
            return Err(FrameOutcome::SourceLimit);
        }
        while self.agents.len() >= self.policy.max_agents.min(MAX_AGENTS) {
            let Some(number) = self.departed.pop_front() else { return Err(FrameOutcome::Capacity) };
            if self.agents.slot(number).has_departed() {
                self.forget(number, ForgetReason::Evicted);
            }
        }
        Ok(())
    }

    /// Records that an agent may be evicted when room is needed.
    pub(super) fn note_departed(&mut self, number: u32) {
        if self.departed.len() > 2 * self.agents.slots() {
            let agents = &self.agents;
            self.departed.retain(|number| agents.slot(*number).has_departed());
        }
        self.departed.push_back(number);
    }

    /// Adds an agent, arms its first check and returns its number. There is room for it.
    pub(super) fn add(&mut self, origin: Origin, mut slot: AgentHot, rest: AgentCold) -> u32 {
        slot.key.source = self.sources.enter(origin);
        if let Some(verdict) = slot.verdict {
            self.population[verdict.index()] += 1;
        }
        let number = self.agents.insert(slot, rest);
        self.wheel.arm(number, self.first_check(number));
        number
    }

    /// Forgets an agent.
    pub(super) fn forget(&mut self, number: u32, reason: ForgetReason) {
        let IndexKey { source, pid, .. } = self.agents.slot(number).key;
        if source == SourceId::LOCAL {
            // Also of one that has ended, if its parent has not asked for its status yet.
            self.requests.push_back(TrackerRequest::Unwatch(pid));
        }
        let agent = self.id(number);
        self.registry_changes.push_back(RegistryChange::Forgotten(Forgotten { agent, reason }));
        let slot = self.agents.slot_mut(number);
        let source = slot.key.source;
        let transport = slot.transport(&self.sources);
        let Some(verdict) = slot.verdict.take() else { return };
        let name = self.agents.rest(number).name;
        self.named.remove(self.names.get(name), number);
        self.names.give_back(name);
        self.agents.remove(number);
        self.adaptive_timeouts.forget(number);
        self.places.forget(number);
        self.sources.leave(source);
        self.port_histories[transport.index()].forget(number);
        self.population[verdict.index()] -= 1;
        self.statistics.forgotten += 1;
    }
}
