//! The state of the planner: an episode for each agent in an unhealthy state, and the history of attempts
//! beyond it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::Transition;
use crate::services::recovery::job::Refusal;
use crate::services::recovery::rule::RecoveryRule;

/// An agent in an unhealthy state.
#[derive(Debug)]
pub(super) struct Episode {
    /// The last transition to an unhealthy state.
    pub(super) transition: Arc<Transition>,
    pub(super) rule: Arc<RecoveryRule>,
    /// The next step.
    pub(super) step: usize,
    pub(super) stage: EpisodeState,
    /// Whether a signal was sent to its process, whose end is then expected.
    pub(super) was_signalled: bool,
    /// Whether the last command for it exited with status 0.
    pub(super) has_helped: bool,
    /// Whether the present attempt is counted, which it is from its first action on.
    pub(super) is_counted: bool,
    /// The refusals of the present step, each of which is reported once.
    pub(super) refused: Vec<Refusal>,
    /// Whether another attempt is of no use: what a command started ended with it.
    pub(super) is_hopeless: bool,
    /// Since when a core dump of its process has been waited for.
    pub(super) dumping_since: Option<MonoTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EpisodeState {
    /// Waiting for the next step until this time.
    Waiting(MonoTime),
    /// The job with this number is being executed.
    Acting(u64),
}

/// The attempts on an agent, kept beyond one episode.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct AttemptHistory {
    /// Failed attempts so far.
    pub(super) attempts: u32,
    /// The earliest time of the next attempt.
    pub(super) next_at: MonoTime,
    /// The start of the agent's healthy period, if it is healthy.
    pub(super) well_since: Option<MonoTime>,
    /// The time of the last attempt.
    pub(super) tried_at: MonoTime,
    /// Whether its process said by its exit status that it is not to be started again, and it has not been well since.
    pub(super) is_final: bool,
}

impl AttemptHistory {
    /// It by another clock, which started so long after that of the history, in nanoseconds.
    pub(super) fn shifted(self, by: i128) -> Self {
        let AttemptHistory { next_at, well_since, tried_at, .. } = self;
        let shifted = |at: MonoTime| at.shifted(by);
        let (next_at, tried_at) = (shifted(next_at), shifted(tried_at));
        AttemptHistory { next_at, tried_at, well_since: well_since.map(shifted), ..self }
    }
}

/// An action that is being executed.
#[derive(Debug)]
pub(super) struct ActionInFlight {
    pub(super) key: AgentKey,
    /// The agent's name, if the action has taken from its budget.
    pub(super) group: Option<Arc<str>>,
    /// Whether the action is the same for all agents of that name.
    pub(super) is_for_group: bool,
    /// The history before the action, if it is the first of an attempt.
    pub(super) before: Option<AttemptHistory>,
}
