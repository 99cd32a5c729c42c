//! Rules: whose verdicts are acted on, how, and how often.

use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use crate::base::Glob;
use crate::domain::beat::Transport;
use crate::domain::tracker::{Cause, Transition, Verdict};
use crate::services::recovery::budget::Budget;
use crate::services::recovery::command::CommandLine;

/// A state that may be acted on: one that is cause for alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadState {
    /// It fell silent.
    Stalled,
    /// Its process ended without a goodbye.
    Down,
    /// It beats, and says that it is in a critical state.
    Critical,
    /// It was expected and has not come.
    Expected,
}

impl BadState {
    /// All of them.
    pub const ALL: [BadState; 4] =
        [BadState::Stalled, BadState::Down, BadState::Critical, BadState::Expected];

    /// The state that a verdict is, if it is a bad one.
    #[must_use]
    pub const fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Stalled => Some(BadState::Stalled),
            Verdict::Down => Some(BadState::Down),
            Verdict::Expected => Some(BadState::Expected),
            Verdict::Up(Status::Critical | Status::Stall) => Some(BadState::Critical),
            Verdict::Up(Status::Ok | Status::Degraded) | Verdict::Gone | Verdict::Unknown => None,
        }
    }

    /// How rules name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            BadState::Stalled => "stalled",
            BadState::Down => "down",
            BadState::Critical => "critical",
            BadState::Expected => "expected",
        }
    }
}

/// What is done in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// People are told.
    Notify,
    /// The agent's process gets a signal.
    Signal(nix::sys::signal::Signal),
    /// A program is run, and killed with all that it started if it takes longer.
    Command(CommandLine, Duration),
}

impl Action {
    /// The value of the metric label `action`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Action::Notify => "notify",
            Action::Signal(_) => "signal",
            Action::Command(..) => "command",
        }
    }
}

/// A step: what is done when the agent is still in its bad state after a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// From the step before, or for the first one from the verdict.
    pub wait: Duration,
    /// What is done.
    pub action: Action,
}

/// Which verdicts are acted on, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryRule {
    /// Whose.
    pub name: Glob,
    /// Labels that the agent must have, all of them.
    pub labels: Vec<(String, String)>,
    /// In which states.
    pub states: Vec<BadState>,
    /// For which causes, by their names; all when there are none.
    pub causes: Vec<&'static str>,
    /// Beating over which transports; all when there are none.
    pub transports: Vec<Transport>,
    /// What is done, one after the other, while the agent stays in a bad state.
    pub steps: Vec<Step>,
    /// How long after the first action of an attempt the next attempt may begin at the earliest.
    pub debounce: Duration,
    /// How long after an attempt without success the next one begins; twice as long each time, up to
    /// [`RecoveryRule::LONGEST_BACKOFF`].
    pub backoff: Duration,
    /// How many attempts there are before it is given up.
    pub attempts: u32,
    /// How many actions on all agents of one name.
    pub budget: Budget,
    /// How many other agents of the same name must be up, if there are others; `None` for 1 when the agent itself still beats,
    /// so that the last one is left alone, and 0 when it does not.
    pub keep_up: Option<u32>,
}

impl RecoveryRule {
    /// The longest wait between two attempts.
    pub const LONGEST_BACKOFF: Duration = Duration::from_secs(3_600);
    /// How long an agent must have been well for its attempts to be forgotten.
    pub const WELL_AFTER: Duration = Duration::from_secs(600);

    /// Whether this rule is for such a verdict.
    pub(super) fn matches(&self, transition: &Transition) -> bool {
        let Transition { agent, labels, to, cause, .. } = transition;
        let is_wanted = |state| self.states.contains(&state);
        BadState::of(*to).is_some_and(is_wanted)
            && (self.causes.is_empty() || self.causes.contains(&cause.as_str()))
            && (self.transports.is_empty() || self.transports.contains(&agent.origin.transport()))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.name.matches(&agent.name)
    }

    /// How long to wait after the `attempt`th attempt, counted from 1.
    pub(super) fn backoff_after(&self, attempt: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(Self::LONGEST_BACKOFF.max(self.backoff))
    }

    /// A name's causes, if there is such a cause.
    #[must_use]
    pub fn cause_named(name: &str) -> Option<&'static str> {
        Cause::NAMES.into_iter().find(|cause| *cause == name)
    }
}

/// Rules in the order in which they were written; the first that fits counts.
pub(super) type Rules = Vec<Arc<RecoveryRule>>;
