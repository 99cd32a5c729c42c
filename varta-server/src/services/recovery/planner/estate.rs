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
use crate::services::recovery::planner::Planner;
use crate::services::recovery::rule::RecoveryRule;

/// The estate.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::services::recovery) struct PlannerEstate {
    spent: Usage,
    groups: Vec<(Arc<str>, Usage)>,
    records: Vec<(AgentKey, AttemptHistory)>,
    episodes: HashMap<AgentKey, LeftEpisode>,
}

/// An episode without the last transition of its agent, which the tracker has.
#[derive(Debug, Serialize, Deserialize)]
struct LeftEpisode {
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
    /// Whether it has episodes that have not been taken up.
    pub(in crate::services::recovery) fn has_episodes(&self) -> bool {
        !self.episodes.is_empty()
    }
}

impl Planner {
    /// What the next server is to go on with. No job is running.
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

    /// Goes on with histories and budgets, before anything has happened.
    pub(in crate::services::recovery) fn inherit(&mut self, estate: &mut PlannerEstate) {
        self.spent = estate.spent;
        let budget = self.budget;
        self.groups = estate.groups.drain(..).map(|(name, usage)| (name, (usage, budget))).collect();
        self.records = estate.records.drain(..).collect();
    }

    /// Takes up the episode of an agent that the tracker finds in a bad state, if one was left of it, its rule is still
    /// there, and nothing has happened to the agent since.
    pub(in crate::services::recovery) fn take_up(&mut self, found: &Transition, estate: &mut PlannerEstate) {
        let key = AgentKey::of(&found.agent);
        let Some(left) = estate.episodes.remove(&key) else { return };
        let is_it = |rule: &&Arc<RecoveryRule>| {
            rule.name.as_str() == left.rule && left.step < rule.steps.len() && rule.matches(found)
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
