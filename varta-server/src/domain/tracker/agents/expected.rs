//! The tracker of expected agents: which of them have not been seen, and which are overdue.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::time::MonoTime;
use crate::domain::expected::ExpectedAgents;

/// The expected agents and their deadlines.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct ExpectedTracker {
    /// By deadline, earliest first; those whose deadline has been checked come before all others.
    agents: Vec<ExpectedAgentState>,
    #[serde(skip)]
    places: HashMap<Arc<str>, usize>,
    /// The number of deadlines that have been checked.
    judged: usize,
    /// The number of agents that have not been seen.
    unheard: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct ExpectedAgentState {
    name: Arc<str>,
    due: MonoTime,
    is_heard: bool,
    /// Whether a user has had it forgotten: it is not awaited any more, also after a reload.
    is_forgotten: bool,
}

impl ExpectedTracker {
    pub(in crate::domain::tracker) fn new(expected: &ExpectedAgents) -> Self {
        let mut awaited =
            ExpectedTracker { agents: Vec::new(), places: HashMap::new(), judged: 0, unheard: 0 };
        awaited.replace(expected, MonoTime::START, |_| false);
        awaited
    }

    /// Finds the places of all again, after they were read. Whether their numbers make sense.
    pub(in crate::domain::tracker) fn reindex(&mut self) -> bool {
        let places = self.agents.iter().enumerate();
        self.places = places.map(|(place, agent)| (Arc::clone(&agent.name), place)).collect();
        self.judged <= self.agents.len()
            && self.unheard == self.agents.iter().filter(|agent| !agent.is_heard).count()
    }

    /// Replaces the expected agents from `now` on. An agent that was expected before keeps its state; for a
    /// new one `is_there` says whether it has been seen already.
    pub(in crate::domain::tracker) fn replace(
        &mut self,
        expected: &ExpectedAgents,
        now: MonoTime,
        is_there: impl Fn(&str) -> bool,
    ) {
        let agents = expected.iter().map(|agent| {
            let name = agent.name.as_str();
            let known = self.places.get(name).map(|place| (*place < self.judged, &self.agents[*place]));
            let name = Arc::from(name);
            match known {
                Some((is_judged, ExpectedAgentState { due, is_heard, is_forgotten, .. })) => {
                    let (due, is_heard, is_forgotten) = (*due, *is_heard, *is_forgotten);
                    (is_judged, ExpectedAgentState { name, due, is_heard, is_forgotten })
                }
                None => {
                    let is_heard = is_there(&name);
                    let due = now + agent.grace;
                    (false, ExpectedAgentState { name, due, is_heard, is_forgotten: false })
                }
            }
        });
        let mut agents: Vec<_> = agents.collect();
        agents.sort_by_key(|(is_judged, agent)| (!is_judged, agent.due));
        self.judged = agents.iter().filter(|(is_judged, _)| *is_judged).count();
        self.agents = agents.into_iter().map(|(_, agent)| agent).collect();
        self.unheard = self.agents.iter().filter(|agent| !agent.is_heard).count();
        let places = self.agents.iter().enumerate();
        self.places = places.map(|(place, agent)| (Arc::clone(&agent.name), place)).collect();
    }

    /// Marks an agent of this name as seen. Returns whether it was overdue.
    pub(in crate::domain::tracker) fn hear(&mut self, name: &str) -> bool {
        if self.unheard == 0 {
            return false;
        }
        let Some(place) = self.places.get(name) else { return false };
        let agent = &mut self.agents[*place];
        let was_missing = !agent.is_heard && *place < self.judged;
        self.unheard -= usize::from(!agent.is_heard);
        agent.is_heard = true;
        was_missing
    }

    /// Whether an agent of this name is overdue.
    pub(in crate::domain::tracker) fn is_missing(&self, name: &str) -> bool {
        let place = self.places.get(name).filter(|place| **place < self.judged);
        place.is_some_and(|place| !self.agents[*place].is_heard)
    }

    /// Marks an agent of this name as not expected any more. Returns whether it was, and had not been seen.
    pub(in crate::domain::tracker) fn forget(&mut self, name: &str) -> bool {
        let unheard = self.unheard;
        self.hear(name);
        let was_awaited = self.unheard < unheard;
        if was_awaited && let Some(place) = self.places.get(name) {
            self.agents[*place].is_forgotten = true;
        }
        was_awaited
    }

    /// The number of agents that are expected, and not awaited because they were forgotten; `is_there` says whether
    /// one has been seen since.
    pub(in crate::domain::tracker) fn forgotten(&self, is_there: impl Fn(&str) -> bool) -> usize {
        self.agents.iter().filter(|agent| agent.is_forgotten && !is_there(&agent.name)).count()
    }

    /// The next deadline.
    pub(in crate::domain::tracker) fn next_due(&self) -> Option<MonoTime> {
        self.agents.get(self.judged).map(|agent| agent.due)
    }

    /// The next agent that is overdue by `now`, each once.
    pub(in crate::domain::tracker) fn pop_missing(&mut self, now: MonoTime) -> Option<Arc<str>> {
        while let Some(agent) = self.agents.get(self.judged).filter(|agent| agent.due <= now) {
            self.judged += 1;
            if !agent.is_heard {
                return Some(Arc::clone(&agent.name));
            }
        }
        None
    }

    /// The number of agents that have not been seen.
    pub(in crate::domain::tracker) fn unheard(&self) -> usize {
        self.unheard
    }

    /// The agents that are overdue.
    pub(in crate::domain::tracker) fn missing(&self) -> impl Iterator<Item = &Arc<str>> {
        let judged = &self.agents[..self.judged];
        judged.iter().filter(|agent| !agent.is_heard).map(|agent| &agent.name)
    }

    /// The agents that have not been seen and are not overdue yet.
    pub(in crate::domain::tracker) fn pending_decision(&self) -> impl Iterator<Item = &Arc<str>> {
        let undecided = &self.agents[self.judged..];
        undecided.iter().filter(|agent| !agent.is_heard).map(|agent| &agent.name)
    }
}
