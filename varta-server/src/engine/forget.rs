//! Agents that a user selects, and those that are forgotten on request.

use crate::domain::AgentPattern;
use crate::engine::query::{ForgetSlice, SelectedSlice};
use crate::engine::record::InputRecord;
use crate::engine::task::TrackerActor;

/// The most agents that are compared with a pattern, and forgotten, before beats are processed again.
const SELECTED_PER_TURN: usize = 1_024;

impl TrackerActor {
    /// Forgets the selected agents that do not live, from slot `from` on.
    pub(super) fn forget(&mut self, who: &AgentPattern, from: usize) -> ForgetSlice {
        let at = self.clock.now();
        let SelectedSlice { agents, next } = self.select(who, from);
        let (living, leaving): (Vec<_>, Vec<_>) = agents.into_iter().partition(|(_, lives)| *lives);
        let mut forgotten = Vec::new();
        for (agent, _) in leaving {
            if self.tracker.handle_forget(&agent) {
                self.process_monitor.recorder.record(InputRecord::Forget { agent: agent.clone(), at });
                forgotten.push(agent);
            }
        }
        let living = living.into_iter().map(|(agent, _)| agent).collect();
        ForgetSlice { forgotten, living, next }
    }

    /// The selected agents from slot `from` on.
    pub(super) fn select(&self, who: &AgentPattern, from: usize) -> SelectedSlice {
        let end = from.saturating_add(SELECTED_PER_TURN);
        let mut agents = self.tracker.selected(who, from..end);
        if from == 0 {
            agents.extend(self.tracker.selected_expected(who).into_iter().map(|agent| (agent, false)));
        }
        SelectedSlice { agents, next: (end < self.tracker.slots()).then_some(end) }
    }
}
