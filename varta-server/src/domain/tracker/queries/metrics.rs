//! What metrics read of the tracker: the population, counters, and a view of each agent.

use std::ops::Range;
use std::sync::Arc;

use crate::domain::tracker::agents::view::{AgentView, Statistics};
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// The number of agents with each verdict, by [`Verdict::index`]; `expected` includes all expected agents
    /// that have not been seen, also those that are not overdue yet, and the jobs that are late.
    #[must_use]
    pub fn population(&self) -> [usize; Verdict::NAMES.len()] {
        let mut population = self.population;
        population[Verdict::EXPECTED] += self.expected.unheard() + self.late_jobs().count();
        population
    }

    /// The names of the expected agents that are overdue, and of the jobs that are late.
    pub fn missing(&self) -> impl Iterator<Item = &Arc<str>> {
        self.expected.missing().chain(self.late_jobs())
    }

    /// The names of agents, and how often one has taken the place of another that was down or gone.
    pub fn restarts(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.names.restarts()
    }

    /// The counters of what is no transition.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            looks_refused: self.inspection_budget.refused(),
            incidents: self.incidents.count(),
            ..self.statistics
        }
    }

    /// One more than the highest slot number so far: the end of the range for [`Tracker::agents`].
    #[must_use]
    pub fn slots(&self) -> usize {
        self.agents.slots()
    }

    /// The agents in a range of slot numbers, which is cut at [`Tracker::slots`].
    pub fn agents(&self, range: Range<usize>) -> impl Iterator<Item = AgentView<'_>> {
        self.agents.range(range).filter_map(|(number, slot, rest)| {
            Some(AgentView {
                name: self.names.get(rest.name),
                origin: slot.origin(&self.sources),
                pid: slot.key.pid,
                twin: rest.twin,
                verdict: slot.verdict?,
                last: slot.last_word(),
                last_beat: slot.last_beat,
                silent_before: rest.silent_before(),
                lost: u64::from(rest.lost),
                stalls: rest.stalls,
                false_positives: rest.false_positives(),
                stall_after: self.stall_after_of(number, rest),
                unit: self.unit_of(rest),
                labels: rest.extra.as_ref().map(|extra| &extra.labels),
                place: self.places.get(number),
            })
        })
    }
}
