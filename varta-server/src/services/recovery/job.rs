//! The interface between planner and executor: jobs, their outcomes, and refusals.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::process::ProcessActivity;
use crate::domain::tracker::Transition;
use crate::services::recovery::rule::{Action, RecoveryRule};

/// An action to execute.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The number, by which the planner identifies it when it gets the outcome.
    pub(crate) number: u64,
    /// The transition to the unhealthy state.
    pub(crate) transition: Arc<Transition>,
    pub(crate) rule: Arc<RecoveryRule>,
    /// The step of the rule, counted from 0.
    pub(crate) step: usize,
    /// The attempt, counted from 1.
    pub(crate) attempt: u32,
    /// Whether a signal was sent to the agent's process before.
    pub(crate) was_signalled: bool,
    /// Whether the last command for it exited with status 0.
    pub(crate) has_helped: bool,
    /// Whether a core dump of the process has been waited for as long as it is.
    pub(crate) has_waited_for_dump: bool,
}

impl Job {
    /// The action of the step.
    pub(crate) fn action(&self) -> &Action {
        &self.rule.steps[self.step].action
    }
}

/// The reason why nothing is done, temporary or final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The budget for all agents is spent.
    Budget,
    /// The budget for agents of this name is spent.
    GroupBudget,
    /// The agent is not observed: the server had an observer gap.
    Blind,
    /// The agent is paused.
    Paused,
    /// Too few other agents of its name are up.
    MinHealthy,
    /// The audit record cannot be made durable.
    NoTrail,
    /// The agent is on another host, where actions are off or signals are impossible.
    Remote,
    /// Its process is not known, so it cannot be told from another one.
    NotAttested,
    /// No pidfd can be opened for its process.
    NotHeld,
    /// The kernel writes the core dump of its process, which a signal would cut off.
    DumpingCore,
    /// Its process is frozen by its cgroup.
    Frozen,
    /// A debugger or another tracer holds its process.
    Traced,
    /// The host is starved of memory, I/O or CPUs.
    HostPressure,
    /// Its process leads no process group, or one that this server is in.
    SharedGroup,
    /// Its process is in the root of the cgroups, or this server is in its cgroup.
    SharedCgroup,
    /// Its pid belongs to another process by now.
    PidReused,
    /// A placeholder of the command has no safe value.
    Argument,
    /// Too many agents are in unhealthy states.
    TooMany,
    /// Its process has said by its exit status that it is not to be started again.
    FinalExitStatus,
    /// All attempts have failed.
    GivenUp,
}

impl Refusal {
    /// Every reason, in the order of the metrics.
    pub(crate) const ALL: [Refusal; 20] = [
        Refusal::Budget,
        Refusal::GroupBudget,
        Refusal::Blind,
        Refusal::Paused,
        Refusal::MinHealthy,
        Refusal::NoTrail,
        Refusal::Remote,
        Refusal::NotAttested,
        Refusal::NotHeld,
        Refusal::DumpingCore,
        Refusal::Frozen,
        Refusal::Traced,
        Refusal::HostPressure,
        Refusal::SharedGroup,
        Refusal::SharedCgroup,
        Refusal::PidReused,
        Refusal::Argument,
        Refusal::TooMany,
        Refusal::FinalExitStatus,
        Refusal::GivenUp,
    ];

    /// The value of the metric label `reason`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Refusal::Budget => "budget",
            Refusal::GroupBudget => "group_budget",
            Refusal::Blind => "blind",
            Refusal::Paused => "paused",
            Refusal::MinHealthy => "last_one_standing",
            Refusal::NoTrail => "no_trail",
            Refusal::Remote => "remote",
            Refusal::NotAttested => "not_attested",
            Refusal::NotHeld => "not_held",
            Refusal::DumpingCore => "dumping_core",
            Refusal::Frozen => "frozen",
            Refusal::Traced => "traced",
            Refusal::HostPressure => "host_pressure",
            Refusal::SharedGroup => "shared_group",
            Refusal::SharedCgroup => "shared_cgroup",
            Refusal::PidReused => "pid_reused",
            Refusal::Argument => "argument",
            Refusal::TooMany => "too_many",
            Refusal::FinalExitStatus => "final_exit_status",
            Refusal::GivenUp => "given_up",
        }
    }

    /// The reason why a process that does this is left alone by a rule that does not name its state; `None`
    /// for any other.
    pub(super) const fn of_activity(activity: ProcessActivity) -> Option<Self> {
        match activity {
            ProcessActivity::DumpingCore => Some(Refusal::DumpingCore),
            ProcessActivity::Frozen => Some(Refusal::Frozen),
            ProcessActivity::Traced => Some(Refusal::Traced),
            ProcessActivity::Gone
            | ProcessActivity::Stopped
            | ProcessActivity::Blocked
            | ProcessActivity::Busy
            | ProcessActivity::Idle
            | ProcessActivity::Unknown => None,
        }
    }

    /// Whether the reason may be temporary.
    pub(super) const fn may_pass(self) -> bool {
        match self {
            Refusal::Budget
            | Refusal::GroupBudget
            | Refusal::Blind
            | Refusal::Paused
            | Refusal::MinHealthy
            | Refusal::NotHeld
            | Refusal::DumpingCore
            | Refusal::Frozen
            | Refusal::Traced
            | Refusal::HostPressure
            | Refusal::NoTrail => true,
            Refusal::Remote
            | Refusal::NotAttested
            | Refusal::SharedGroup
            | Refusal::SharedCgroup
            | Refusal::PidReused
            | Refusal::Argument
            | Refusal::TooMany
            | Refusal::FinalExitStatus
            | Refusal::GivenUp => false,
        }
    }
}

/// The outcome of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActionOutcome {
    /// The action was carried out; whether it helped shows in the agent.
    Done,
    /// The action failed, or was only logged.
    Failed,
    /// The command succeeded, and what it started ended with it: another attempt would do the same.
    DidNotStay,
    /// The action was not needed: its process has ended.
    Skipped,
    /// The agent is healthy, gone, or replaced by another one.
    Withdrawn,
    /// The action was not carried out.
    Refused(Refusal),
}

/// A refusal to report.
#[derive(Clone, Debug)]
pub(crate) struct RefusalNotice {
    pub(crate) transition: Arc<Transition>,
    pub(crate) refusal: Refusal,
    /// After which time the agent gets another attempt all the same, if it was given up.
    pub(crate) again_after: Option<Duration>,
}

impl RefusalNotice {
    pub(super) fn new(transition: &Arc<Transition>, refusal: Refusal) -> Self {
        RefusalNotice { transition: Arc::clone(transition), refusal, again_after: None }
    }
}
