//! Mass silence: very many agents are silent at once, which may be the fault of what all their beats pass
//! through, this server included, without any other sign of that.
//!
//! The question arises when a deadline has passed and nothing else explains the silence. To count all agents
//! would take longer the more there are, so a bounded number of them is checked, and the answer holds for a
//! moment.

use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Transport;
use crate::domain::tracker::detection::silence_sample::{SAMPLE, SilenceSample};
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// How long an answer holds, so that a million deadlines in one second do not each need one.
const HOLDS_FOR: Duration = Duration::from_millis(10);

impl Tracker {
    /// Whether very many of the agents on this transport are silent: at least half, and of no fewer than
    /// [`Policy::mass_silence_min_agents`](crate::domain::tracker::Policy::mass_silence_min_agents).
    /// An agent that was called stalled does not count.
    ///
    /// "Silent" are those that have used up three quarters of their timeout. Of agents that beat three times
    /// in it none is, when all is well; and when the first of them reaches its deadline because nothing comes
    /// through, most are.
    pub(super) fn is_mass_silence(&mut self, transport: Transport, now: MonoTime) -> bool {
        let [up, unknown] = [Verdict::UP, Verdict::UNKNOWN].map(|state| self.population[state]);
        if self.policy.mass_silence_min_agents == 0 || up + unknown < self.policy.mass_silence_min_agents {
            return false;
        }
        let mut crowd = self.crowds[transport.index()];
        if crowd.answered_at.is_none_or(|at| now.since(at) >= HOLDS_FOR || now < at) {
            crowd.answered_at = Some(now);
            crowd.is_silent = self.ask_a_sample(&mut crowd, transport, now);
            self.crowds[transport.index()] = crowd;
        }
        crowd.is_silent
    }

    fn ask_a_sample(&self, crowd: &mut SilenceSample, transport: Transport, now: MonoTime) -> bool {
        let (mut asked, mut silent) = (0, 0);
        for number in crowd.sample(self.agents.slots()) {
            let Ok(number) = u32::try_from(number) else { continue };
            let slot = self.agents.slot(number);
            let counts =
                slot.verdict.is_some_and(Verdict::is_awaited) && slot.transport(&self.sources) == transport;
            if !counts {
                continue;
            }
            asked += 1;
            // Measured back from the deadline, whatever moved that.
            let left = self.deadline(number).since(now);
            silent += usize::from(left <= self.stall_after(number) / 4);
        }
        // Of a sample, enough agents must count for the share to mean something.
        asked >= self.policy.mass_silence_min_agents.min(SAMPLE / 4) && silent * 2 >= asked
    }
}
