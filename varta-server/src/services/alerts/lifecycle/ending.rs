//! How an alert ends: the reason, and what is kept of it until all receivers have its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::describe::describe;
use crate::domain::tracker::{AgentId, ForgetReason, Transition};
use crate::services::alerts::alert::{Alert, Subject};
use crate::services::alerts::annotations;

/// An ended alert that some receiver does not have yet, or that Alertmanagers get again.
#[derive(Debug)]
pub(super) struct ResolvedAlert {
    pub(super) alert: Arc<Alert>,
    /// The Alertmanagers that do not have it, by their numbers.
    pub(super) alertmanagers: BTreeSet<usize>,
    /// Whether the receivers of notices do not have it.
    pub(super) notices: bool,
    /// Until when Alertmanagers get it again although they have it.
    pub(super) repeat_until: MonoTime,
}

impl ResolvedAlert {
    /// Whether all receivers have it.
    pub(super) fn is_told(&self) -> bool {
        self.alertmanagers.is_empty() && !self.notices
    }
}

/// The reason why an alert ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum ResolveReason<'a> {
    /// Its agent is healthy.
    Well(&'a Transition),
    /// Its agent was missing, and was seen.
    Came(&'a AgentId),
    /// Another process is the successor of its agent.
    Succeeded(&'a AgentId),
    /// Its agent flapped, and was healthy for so long.
    Calm(Duration),
    /// Its agent got worse. `is_told` means that the notification of its next alert says so.
    Worse { transition: &'a Transition, is_told: bool },
    /// Its agent is in maintenance.
    Paused,
    /// A sweep did not find its agent in alarm; the time is unknown.
    NotInAlarm,
    /// Its agent is gone, and another one has its pid.
    Replaced,
    /// The tracker has forgotten its agent.
    Forgotten(ForgetReason),
    /// All members of its group have left; `paused` says how many because of a pause.
    Over { paused: u64 },
}

impl ResolveReason<'_> {
    pub(super) fn summary(&self, alert: &Alert) -> String {
        let who = match &alert.subject {
            Subject::Agent(named) if named.pid == 0 => named.name.clone(),
            Subject::Agent(named) => format!("{}[{}]", named.name, named.pid),
            Subject::Incident { host, .. } => format!("what many agents of {host} fell in"),
            Subject::Many => "the alarm of many agents".to_owned(),
        };
        match self {
            ResolveReason::Well(transition) | ResolveReason::Worse { transition, .. } => describe(transition),
            ResolveReason::Came(agent) => format!("{who} has come: it is {agent}"),
            ResolveReason::Succeeded(agent) => format!("{who} has a successor: {agent}"),
            ResolveReason::Calm(window) => {
                format!(
                    "{who} fell again and again, and has been well for {}",
                    humantime::format_duration(*window)
                )
            }
            ResolveReason::Paused => format!("{who} is paused, and nothing is said of it until that is over"),
            ResolveReason::NotInAlarm => format!("{who} is in alarm no more"),
            ResolveReason::Replaced => format!("{who} has gone, and another process has its pid"),
            ResolveReason::Forgotten(reason) => {
                format!("{who} was forgotten: {}", forgotten_because(*reason))
            }
            ResolveReason::Over { paused: 0 } => {
                format!("{who} is over: all of them are well, or were forgotten")
            }
            ResolveReason::Over { paused } => format!(
                "{who} is told no longer: {paused} of them are paused, and all others are well, or were forgotten"
            ),
        }
    }

    /// The annotation that says why the alert is over.
    pub(super) const fn annotation(&self) -> &'static str {
        match self {
            ResolveReason::Worse { .. } => annotations::ESCALATED,
            ResolveReason::Paused | ResolveReason::Over { paused: 1.. } => annotations::PAUSED,
            ResolveReason::Well(_)
            | ResolveReason::Came(_)
            | ResolveReason::Succeeded(_)
            | ResolveReason::Calm(_)
            | ResolveReason::NotInAlarm
            | ResolveReason::Replaced
            | ResolveReason::Forgotten(_)
            | ResolveReason::Over { paused: 0 } => annotations::RESOLVED,
        }
    }

    pub(super) const fn transition(&self) -> Option<&Transition> {
        match self {
            ResolveReason::Well(transition) | ResolveReason::Worse { transition, .. } => Some(transition),
            ResolveReason::Came(_)
            | ResolveReason::Succeeded(_)
            | ResolveReason::Calm(_)
            | ResolveReason::Paused
            | ResolveReason::NotInAlarm
            | ResolveReason::Replaced
            | ResolveReason::Forgotten(_)
            | ResolveReason::Over { .. } => None,
        }
    }
}

const fn forgotten_because(reason: ForgetReason) -> &'static str {
    match reason {
        ForgetReason::Succeeded => "another has its place",
        ForgetReason::Expired => "it has not beaten for as long as it is kept",
        ForgetReason::Evicted => "its room was needed for another",
        ForgetReason::Requested => "a user asked for it; the log of the server says who and why",
    }
}
