//! What the planner of one server leaves to that of the next: open episodes, histories of attempts, and what is spent
//! of the budgets. Times are those of the servers' common clock.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::rate_limit::Usage;
use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::Transition;
use crate::services::recovery::episode::{AttemptHistory, Episode, EpisodeState};
use crate::services::recovery::planner::{MAX_EPISODES, Planner};
use crate::services::recovery::rule::RecoveryRule;

/// The estate.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::services::recovery) struct PlannerEstate {
    spent: Usage,
    groups: Vec<(Arc<str>, Usage)>,
    records: Vec<(AgentKey, AttemptHistory)>,
    episodes: Vec<(AgentKey, LeftEpisode)>,
}

/// Episodes that have not been taken up, by agent.
pub(in crate::services::recovery) type LeftEpisodes = HashMap<AgentKey, LeftEpisode>;

/// An episode without the last transition of its agent, which the tracker has.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::services::recovery) struct LeftEpisode {
    /// The pattern of names of its rule.
    rule: String,
    step: usize,
    due: MonoTime,
    was_signalled: bool,
    has_helped: bool,
    is_counted: bool,
    is_hopeless: bool,
    dumping_since: Option<MonoTime>,
}

impl PlannerEstate {
    /// Puts it by another clock; both starts are by that of the host, in nanoseconds. What was before the start of the
    /// other clock is at its start.
    pub(in crate::services::recovery) fn shift(&mut self, from: u64, to: u64) {
        let by = i128::from(to) - i128::from(from);
        self.spent = self.spent.shifted(by);
        for (_, usage) in &mut self.groups {
            *usage = usage.shifted(by);
        }
        for (_, record) in &mut self.records {
            *record = record.shifted(by);
        }
        for (_, LeftEpisode { due, dumping_since, .. }) in &mut self.episodes {
            *due = due.shifted(by);
            *dumping_since = dumping_since.map(|since| since.shifted(by));
        }
    }
}

impl Planner {
    /// What the next server is to go on with. Of an agent that is being acted on there is no episode.
    pub(in crate::services::recovery) fn leave(&self) -> PlannerEstate {
        let groups = self.groups.iter().map(|(name, (usage, _))| (Arc::clone(name), *usage));
        let records = self.records.iter().map(|(key, record)| (key.clone(), *record));
        let episodes = self.cases.iter().filter_map(|(key, case)| {
            // The outcome of what is being done is not known to anybody.
            let EpisodeState::Waiting(due) = case.stage else { return None };
            let left = LeftEpisode {
                rule: case.rule.name.as_str().to_owned(),
                step: case.step,
                due,
                was_signalled: case.was_signalled,
                has_helped: case.has_helped,
                is_counted: case.is_counted,
                is_hopeless: case.is_hopeless,
                dumping_since: case.dumping_since,
            };
            Some((key.clone(), left))
        });
        PlannerEstate {
            spent: self.spent,
            groups: groups.collect(),
            records: records.collect(),
            episodes: episodes.collect(),
        }
    }

    /// Goes on with histories and budgets, before anything has happened, and returns the episodes.
    pub(in crate::services::recovery) fn inherit(&mut self, estate: PlannerEstate) -> LeftEpisodes {
        let PlannerEstate { spent, groups, records, episodes } = estate;
        let budget = self.budget;
        self.spent = spent;
        let groups = groups.into_iter().take(MAX_EPISODES);
        self.groups = groups.map(|(name, usage)| (name, (usage, budget))).collect();
        self.records = records.into_iter().take(MAX_EPISODES).collect();
        episodes.into_iter().take(MAX_EPISODES).collect()
    }

    /// Acts on an agent that was in a bad state before a restart of the server and of which no episode was left, if it
    /// still is when it could have beaten again.
    pub(in crate::services::recovery) fn meet(&mut self, found: &Transition, now: MonoTime) {
        let key = AgentKey::of(&found.agent);
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(found)) else { return };
        let before = self.records.get(&key).copied().unwrap_or_default();
        // Whoever was given up has been told of.
        if self.cases.contains_key(&key) || before.is_final || before.attempts >= rule.attempts {
            return;
        }
        self.worsen(key.clone(), found, now);
        self.wait_for(&key, now + found.stall_after);
    }

    /// Takes up the episode of an agent that the tracker finds in a bad state, if one was left of it, its rule is still
    /// there, and nothing has happened to the agent since.
    pub(in crate::services::recovery) fn take_up(&mut self, found: &Transition, left: &LeftEpisode) {
        let key = AgentKey::of(&found.agent);
        // The tracker does not know any more by what cause.
        let is_it = |rule: &&Arc<RecoveryRule>| {
            rule.name.as_str() == left.rule
                && left.step < rule.steps.len()
                && rule.matches_but_for_cause(found)
        };
        let Some(rule) = self.rules.iter().find(is_it).cloned() else { return };
        if self.cases.contains_key(&key) {
            return;
        }
        self.due.insert((left.due, key.clone()));
        let episode = Episode {
            transition: Arc::new(found.clone()),
            rule,
            step: left.step,
            stage: EpisodeState::Waiting(left.due),
            was_signalled: left.was_signalled,
            has_helped: left.has_helped,
            is_counted: left.is_counted,
            refused: Vec::new(),
            is_hopeless: left.is_hopeless,
            dumping_since: left.dumping_since,
        };
        self.cases.insert(key, episode);
    }
}
