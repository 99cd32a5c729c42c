use std::ops::Range;
use std::sync::Arc;

use crate::domain::tracker::agents::view::{AgentView, Statistics};
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// How many agents have each verdict, by [`Verdict::index`]; of those that are expected all that were not heard, also
    /// those who have time yet.
    #[must_use]
    pub fn population(&self) -> [usize; Verdict::NAMES.len()] {
        let mut population = self.population;
        population[Verdict::EXPECTED] += self.awaited.unheard();
        population
    }

    /// The names of agents that are expected, were not heard, and whose grace is over.
    pub fn missing(&self) -> impl Iterator<Item = &Arc<str>> {
        self.awaited.missing()
    }

    /// The names under which agents have taken the place of others that were down or gone, with how often.
    pub fn restarts(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.names.restarts()
    }

    /// What has happened that is no transition.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            looks_refused: self.looks.refused(),
            incidents: self.incidents.count(),
            ..self.statistics
        }
    }

    /// One more than the highest slot number there has been: the end of the range for [`Tracker::agents`].
    #[must_use]
    pub fn slots(&self) -> usize {
        self.agents.slots()
    }

    /// The agents in a range of slot numbers. What is beyond [`Tracker::slots`] is empty.
    pub fn agents(&self, range: Range<usize>) -> impl Iterator<Item = AgentView<'_>> {
        self.agents.range(range).filter_map(|(number, slot, rest)| {
            Some(AgentView {
                name: self.names.get(rest.name),
                origin: self.sources.origin(slot.key.source),
                pid: slot.key.pid,
                twin: rest.twin,
                verdict: slot.verdict?,
                last: slot.last_word(),
                last_beat: slot.last_beat,
                silent_before: rest.silent_before(),
                lost: u64::from(rest.lost),
                stalls: rest.stalls,
                mistakes: rest.mistakes(),
                stall_after: self.stall_after_of(number, rest),
            })
        })
    }
}
