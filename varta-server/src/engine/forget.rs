//! Agents that a user selects, and those that are forgotten on request.

use crate::domain::AgentPattern;
use crate::domain::tracker::{AgentId, Life};
use crate::engine::query::{ForgetSlice, SelectedSlice};
use crate::engine::record::InputRecord;
use crate::engine::task::TrackerActor;

/// The most agents that are compared with a pattern, and forgotten, before beats are processed again.
const SELECTED_PER_TURN: usize = 1_024;

impl TrackerActor {
    /// Forgets the selected agents that do not live, from slot `from` on. The kernel is asked for a silent process
    /// whose end it would not report.
    pub(super) fn forget(&mut self, who: &AgentPattern, from: usize) -> ForgetSlice {
        let at = self.clock.now();
        let (agents, next) = self.selected(who, from);
        let (mut living, mut forgotten) = (Vec::new(), Vec::new());
        for (agent, life) in agents {
            let lives = match life {
                Life::Beats => true,
                Life::Silent(process) => {
                    !self.process_monitor.check_absence(agent.pid, process, &mut self.tracker, at)
                }
                Life::Ended => false,
            };
            if lives {
                living.push(agent);
            } else if self.tracker.handle_forget(&agent) {
                self.process_monitor.recorder.record(InputRecord::Forget { agent: agent.clone(), at });
                forgotten.push(agent);
            }
        }
        ForgetSlice { forgotten, living, next }
    }

    /// The selected agents from slot `from` on.
    pub(super) fn select(&self, who: &AgentPattern, from: usize) -> SelectedSlice {
        let (agents, next) = self.selected(who, from);
        let agents = agents.into_iter().map(|(agent, life)| (agent, life != Life::Ended)).collect();
        SelectedSlice { agents, next }
    }

    /// Some of the selected agents, from slot `from` on, and the slot from which others follow.
    fn selected(&self, who: &AgentPattern, from: usize) -> (Vec<(AgentId, Life)>, Option<usize>) {
        let end = from.saturating_add(SELECTED_PER_TURN);
        let mut agents = self.tracker.selected(who, from..end);
        if from == 0 {
            agents.extend(self.tracker.selected_expected(who).into_iter().map(|agent| (agent, Life::Ended)));
        }
        (agents, (end < self.tracker.slots()).then_some(end))
    }
}
