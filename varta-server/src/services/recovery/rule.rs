//! Recovery rules: which transitions are acted on, how, and how often.

use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use crate::base::Glob;
use crate::domain::beat::Transport;
use crate::domain::tracker::{Cause, Transition, Verdict};
use crate::services::recovery::budget::Budget;
use crate::services::recovery::command::CommandLine;

/// An unhealthy state, which a rule may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnhealthyState {
    /// The agent is silent.
    Stalled,
    /// Its process ended without a goodbye.
    Down,
    /// It beats and reports a critical status.
    Critical,
    /// It was expected and has not been seen.
    Expected,
}

impl UnhealthyState {
    /// All states.
    pub const ALL: [UnhealthyState; 4] =
        [UnhealthyState::Stalled, UnhealthyState::Down, UnhealthyState::Critical, UnhealthyState::Expected];

    /// The unhealthy state of a verdict; `None` for a healthy one.
    #[must_use]
    pub const fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Stalled => Some(UnhealthyState::Stalled),
            Verdict::Down => Some(UnhealthyState::Down),
            Verdict::Expected => Some(UnhealthyState::Expected),
            Verdict::Up(Status::Critical | Status::Stall) => Some(UnhealthyState::Critical),
            Verdict::Up(Status::Ok | Status::Degraded) | Verdict::Gone | Verdict::Unknown => None,
        }
    }

    /// The name in rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            UnhealthyState::Stalled => "stalled",
            UnhealthyState::Down => "down",
            UnhealthyState::Critical => "critical",
            UnhealthyState::Expected => "expected",
        }
    }
}

/// Whom a signal reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalScope {
    /// The agent's process.
    Process,
    /// The process group that it leads.
    Group,
    /// All processes of its cgroup, and of the cgroups below.
    Cgroup,
}

impl SignalScope {
    /// All scopes.
    pub const ALL: [SignalScope; 3] = [SignalScope::Process, SignalScope::Group, SignalScope::Cgroup];

    /// The name in rules and in the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SignalScope::Process => "process",
            SignalScope::Group => "group",
            SignalScope::Cgroup => "cgroup",
        }
    }
}

/// The action of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Sends a notification.
    Notify,
    /// Sends a signal to the agent's process, or to more than that.
    Signal(nix::sys::signal::Signal, SignalScope),
    /// Runs a program, which is killed after the timeout with all that it started.
    Command(CommandLine, Duration),
}

impl Action {
    /// The value of the metric label `action`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Action::Notify => "notify",
            Action::Signal(..) => "signal",
            Action::Command(..) => "command",
        }
    }
}

/// A step: an action that follows if the agent is still in an unhealthy state after a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The wait since the step before, or since the transition for the first one.
    pub wait: Duration,
    /// The action.
    pub action: Action,
}

/// A recovery rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryRule {
    /// The pattern of the agents' names.
    pub name: Glob,
    /// Labels of which the agent must have all.
    pub labels: Vec<(String, String)>,
    /// The states.
    pub states: Vec<UnhealthyState>,
    /// The causes by name; empty for all.
    pub causes: Vec<&'static str>,
    /// The transports; empty for all.
    pub transports: Vec<Transport>,
    /// The steps, taken in order while the agent stays in an unhealthy state.
    pub steps: Vec<Step>,
    /// The shortest time from the first action of an attempt to the next attempt.
    pub debounce: Duration,
    /// The wait after the first failed attempt, doubled after each further one up to
    /// [`RecoveryRule::MAX_BACKOFF`].
    pub backoff: Duration,
    /// The number of attempts before the agent is given up.
    pub attempts: u32,
    /// The budget for all agents of one name.
    pub budget: Budget,
    /// How many other agents of the name must be up, if there are others. `None` means 1 while the agent
    /// itself still beats, so that the last one is left alone, and 0 otherwise.
    pub min_healthy: Option<u32>,
    /// How long after an attempt an agent that was given up gets another one, again and again; `None` for never.
    pub give_up_retry: Option<Duration>,
    /// The exit statuses by which a process says that it is not to be started again.
    pub final_exit_statuses: Vec<u8>,
}

impl RecoveryRule {
    /// The longest wait between two attempts.
    pub const MAX_BACKOFF: Duration = Duration::from_secs(3_600);
    /// The healthy period after which the attempts on an agent are forgotten.
    pub const WELL_AFTER: Duration = Duration::from_secs(600);

    /// Whether the rule applies to a transition.
    pub(super) fn matches(&self, transition: &Transition) -> bool {
        (self.causes.is_empty() || self.causes.contains(&transition.cause.as_str()))
            && self.matches_but_for_cause(transition)
    }

    /// The same for whatever cause.
    pub(super) fn matches_but_for_cause(&self, transition: &Transition) -> bool {
        let Transition { agent, labels, to, .. } = transition;
        let is_wanted = |state| self.states.contains(&state);
        UnhealthyState::of(*to).is_some_and(is_wanted)
            && (self.transports.is_empty() || self.transports.contains(&agent.origin.transport()))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.name.matches(&agent.name)
    }

    /// Whether the process has said by its exit status that it is not to be started again.
    pub(super) fn is_final(&self, cause: Cause) -> bool {
        matches!(cause, Cause::Exited { code: Some(code) } if self.final_exit_statuses.contains(&code))
    }

    /// The wait after the `attempt`th attempt, counted from 1.
    pub(super) fn backoff_after(&self, attempt: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(Self::MAX_BACKOFF.max(self.backoff))
    }

    /// Looks up a cause by name.
    #[must_use]
    pub fn cause_named(name: &str) -> Option<&'static str> {
        Cause::NAMES.into_iter().find(|cause| *cause == name)
    }
}

/// Rules in the order of the configuration; the first that matches applies.
pub(super) type Rules = Vec<Arc<RecoveryRule>>;
