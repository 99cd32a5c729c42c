//! Agents that a user asks the tracker to forget.

use std::ops::Range;

use crate::domain::AgentPattern;
use crate::domain::process::ProcessId;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::snapshot::{ForgetReason, Forgotten, RegistryChange};
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::transition::AgentId;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// What is known of the life of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It beats.
    Beats,
    /// It is a process of this host that is silent, and that nobody has reported to have ended: this one, where it
    /// could be identified.
    Silent(Option<ProcessId>),
    /// It is down or gone, or a silent agent of another host.
    Ended,
}

impl Tracker {
    /// Forgets an agent on request, unless it lives: its next beat would bring it back, and a process that
    /// hangs would not be watched any more. An expected agent that has not come is not waited for any longer.
    /// Returns whether it was forgotten.
    pub fn handle_forget(&mut self, agent: &AgentId) -> bool {
        if agent.pid == 0 {
            let was_late = self.forget_job(&agent.name);
            let is_forgotten = self.expected.forget(&agent.name);
            if is_forgotten && !was_late {
                let forgotten = Forgotten { agent: agent.clone(), reason: ForgetReason::Requested };
                self.registry_changes.push_back(RegistryChange::Forgotten(forgotten));
            }
            return is_forgotten || was_late;
        }
        let Some(number) = self.find(agent).filter(|number| self.life(*number) == Life::Ended) else {
            return false;
        };
        self.forget(number, ForgetReason::Requested);
        true
    }

    /// The agents in a range of slot numbers that are selected, and what is known of the life of each.
    pub(crate) fn selected(&self, who: &AgentPattern, range: Range<usize>) -> Vec<(AgentId, Life)> {
        let known = self.agents.range(range).filter(|(_, slot, _)| slot.verdict.is_some());
        let selected = known.filter(|(_, slot, rest)| who.matches(self.names.get(rest.name), slot.key.pid));
        selected.map(|(number, _, _)| (self.id(number), self.life(number))).collect()
    }

    /// The expected agents that have not come and are selected.
    pub(crate) fn selected_expected(&self, who: &AgentPattern) -> Vec<AgentId> {
        let names = self.missing().chain(self.awaited()).filter(|name| who.matches(name, 0));
        names.map(AgentId::expected).collect()
    }

    /// Whether an agent lives, as far as is known: it beats, or is silent and nothing was heard of the end of its
    /// process.
    fn life(&self, number: u32) -> Life {
        let slot = self.agents.slot(number);
        match slot.verdict {
            Some(Verdict::Up(_)) => Life::Beats,
            Some(Verdict::Stalled | Verdict::Unknown | Verdict::Expected)
                if slot.key.source == SourceId::LOCAL && !self.agents.rest(number).is_dead =>
            {
                Life::Silent(self.incarnation(number))
            }
            Some(Verdict::Stalled | Verdict::Unknown | Verdict::Expected | Verdict::Down | Verdict::Gone)
            | None => Life::Ended,
        }
    }
}
