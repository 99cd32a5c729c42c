//! What the planner and those who do the work tell each other: jobs, what came of them, and why nothing was done.

use std::sync::Arc;

use crate::domain::tracker::Transition;
use crate::services::recovery::rule::{Action, RecoveryRule};

/// Something to be done.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Its number, which [`Planner::handle_outcome`] is told.
    pub(crate) number: u64,
    /// The change to the bad state.
    pub(crate) transition: Arc<Transition>,
    pub(crate) rule: Arc<RecoveryRule>,
    /// Which of the rule's steps, counted from 0.
    pub(crate) step: usize,
    /// Which attempt, counted from 1.
    pub(crate) attempt: u32,
    /// Whether the agent's process was sent a signal before.
    pub(crate) was_signalled: bool,
    /// Whether the last command that was run for it exited with status 0.
    pub(crate) has_helped: bool,
}

impl Job {
    /// What is to be done.
    pub(crate) fn action(&self) -> &Action {
        &self.rule.steps[self.step].action
    }
}

/// Why nothing was done, for the moment or for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The budget for all agents is spent.
    Budget,
    /// That for agents of this name is.
    GroupBudget,
    /// This server could not see lately.
    Blind,
    /// The agent is paused.
    Paused,
    /// Too few others of its name are up.
    LastOneStanding,
    /// What was to be done could not be written down before.
    NoTrail,
    /// It is an agent of another host, and those are left alone, or cannot be sent a signal.
    Remote,
    /// Its process cannot be told from another's.
    NotAttested,
    /// The kernel does not let us hold its process.
    NotHeld,
    /// Its pid belongs to another process by now.
    PidReused,
    /// Nothing, or nothing safe, is known for a place in the command.
    Argument,
    /// There are too many agents in bad states.
    TooMany,
    /// All attempts were without success.
    GivenUp,
}

impl Refusal {
    /// Every reason, in the order in which metrics list them.
    pub(crate) const ALL: [Refusal; 13] = [
        Refusal::Budget,
        Refusal::GroupBudget,
        Refusal::Blind,
        Refusal::Paused,
        Refusal::LastOneStanding,
        Refusal::NoTrail,
        Refusal::Remote,
        Refusal::NotAttested,
        Refusal::NotHeld,
        Refusal::PidReused,
        Refusal::Argument,
        Refusal::TooMany,
        Refusal::GivenUp,
    ];

    /// The value of the metric label `reason`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Refusal::Budget => "budget",
            Refusal::GroupBudget => "group_budget",
            Refusal::Blind => "blind",
            Refusal::Paused => "paused",
            Refusal::LastOneStanding => "last_one_standing",
            Refusal::NoTrail => "no_trail",
            Refusal::Remote => "remote",
            Refusal::NotAttested => "not_attested",
            Refusal::NotHeld => "not_held",
            Refusal::PidReused => "pid_reused",
            Refusal::Argument => "argument",
            Refusal::TooMany => "too_many",
            Refusal::GivenUp => "given_up",
        }
    }

    /// Whether it may be otherwise in a moment.
    pub(super) const fn may_pass(self) -> bool {
        match self {
            Refusal::Budget
            | Refusal::GroupBudget
            | Refusal::Blind
            | Refusal::Paused
            | Refusal::LastOneStanding
            | Refusal::NotHeld
            | Refusal::NoTrail => true,
            Refusal::Remote
            | Refusal::NotAttested
            | Refusal::PidReused
            | Refusal::Argument
            | Refusal::TooMany
            | Refusal::GivenUp => false,
        }
    }
}

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done; if it helped the agent will show it.
    Done,
    /// It was tried, without success, or only said.
    Failed,
    /// There was nothing to be done: a process that has ended gets no signal.
    Skipped,
    /// The agent is well again, or gone, or another has its place.
    Withdrawn,
    /// It was not done.
    Refused(Refusal),
}

/// A refusal that is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) transition: Arc<Transition>,
    pub(crate) refusal: Refusal,
}
