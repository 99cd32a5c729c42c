//! Agents that a user asks the tracker to forget.

use std::ops::Range;

use crate::domain::AgentPattern;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::snapshot::{ForgetReason, Forgotten, RegistryChange};
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::transition::AgentId;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// Forgets an agent on request, unless it lives: its next beat would bring it back, and a process that
    /// hangs would not be watched any more. An expected agent that has not come is not waited for any longer.
    /// Returns whether it was forgotten.
    pub fn handle_forget(&mut self, agent: &AgentId) -> bool {
        if agent.pid == 0 {
            let is_forgotten = self.expected.forget(&agent.name);
            if is_forgotten {
                let forgotten = Forgotten { agent: agent.clone(), reason: ForgetReason::Requested };
                self.registry_changes.push_back(RegistryChange::Forgotten(forgotten));
            }
            return is_forgotten;
        }
        let Some(number) = self.find(agent).filter(|number| !self.lives(*number)) else { return false };
        self.forget(number, ForgetReason::Requested);
        true
    }

    /// The agents in a range of slot numbers that are selected, and whether each lives.
    pub(crate) fn selected(&self, who: &AgentPattern, range: Range<usize>) -> Vec<(AgentId, bool)> {
        let known = self.agents.range(range).filter(|(_, slot, _)| slot.verdict.is_some());
        let selected = known.filter(|(_, slot, rest)| who.matches(self.names.get(rest.name), slot.key.pid));
        selected.map(|(number, _, _)| (self.id(number), self.lives(number))).collect()
    }

    /// The expected agents that have not come and are selected.
    pub(crate) fn selected_expected(&self, who: &AgentPattern) -> Vec<AgentId> {
        let names = self.missing().chain(self.awaited()).filter(|name| who.matches(name, 0));
        names.map(AgentId::expected).collect()
    }

    /// Whether an agent lives, as far as is known: it beats, or is silent and its process is there.
    fn lives(&self, number: u32) -> bool {
        let slot = self.agents.slot(number);
        match slot.verdict {
            Some(Verdict::Up(_)) => true,
            Some(Verdict::Stalled | Verdict::Unknown | Verdict::Expected) => {
                slot.key.source == SourceId::LOCAL && self.process(number).is_some()
            }
            Some(Verdict::Down | Verdict::Gone) | None => false,
        }
    }
}
