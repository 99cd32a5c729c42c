//! What the planner keeps: a case for each agent in a bad state, and a record of what was tried beyond that.

use std::sync::Arc;

use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::Transition;
use crate::services::recovery::job::Refusal;
use crate::services::recovery::rule::RecoveryRule;

/// One agent in a bad state.
#[derive(Debug)]
pub(super) struct Case {
    /// The last change to a bad state.
    pub(super) transition: Arc<Transition>,
    pub(super) rule: Arc<RecoveryRule>,
    /// The next step.
    pub(super) step: usize,
    pub(super) stage: Stage,
    /// Whether its process was sent a signal: then it is no wonder if that ends, however it does.
    pub(super) was_signalled: bool,
    /// Whether the last command that was run for it exited with status 0.
    pub(super) has_helped: bool,
    /// Whether the present attempt is counted: from its first action on.
    pub(super) is_counted: bool,
    /// The last reason for which the present step was refused, which is told once.
    pub(super) refused: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// For the next step, until then.
    Waiting(MonoTime),
    /// The job with this number is done.
    Acting(u64),
}

/// What is remembered of an agent beyond one bad time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// Attempts without success so far.
    pub(super) attempts: u32,
    /// When the next one may begin.
    pub(super) next_at: MonoTime,
    /// Since when it is well, if it is.
    pub(super) well_since: Option<MonoTime>,
    /// When something was last tried.
    pub(super) tried_at: MonoTime,
}

/// What is kept of a job while it is being done.
#[derive(Debug)]
pub(super) struct Doing {
    pub(super) key: AgentKey,
    /// Whose budget it has taken from, if it has.
    pub(super) group: Option<Arc<str>>,
    /// Whether it is the same deed for all agents of that name.
    pub(super) is_for_group: bool,
    /// What was remembered of the agent before, if this is the first action of an attempt.
    pub(super) before: Option<Record>,
}
