//! An alert for many agents: the members of an incident, or all agents without an alert of their own.

use std::time::Duration;

use crate::base::clock::WallClock;
use crate::base::time::{MonoTime, WallTime};
use crate::domain::describe::{causes_by_count, counted};
use crate::domain::tracker::Problem;
use crate::domain::tracker::{Cause, Transition};
use crate::services::alerts::alert::{Alert, Subject, Texts};

/// A group lasts at least this long after its last member joined, even if none is in alarm. Longer than the
/// gap between two failures of one incident.
const MAY_GROW_FOR: Duration = Duration::from_secs(2);

/// The members of a group's alert.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Members that are in alarm or flap.
    pub(super) members: u64,
    /// All members since the start.
    in_all: u64,
    /// Members that have left because of a pause.
    pub(super) paused: u64,
    causes: [u32; Cause::NAMES.len()],
    pub(super) may_grow_until: MonoTime,
    /// Whether it comes from the server's previous run, and its members have yet to be found.
    pub(super) adopts: bool,
    /// Whether its annotations are out of date.
    pub(super) is_outdated: bool,
    /// Whether the receivers of notices have a notification that members flap.
    pub(super) is_flapping: bool,
}

impl Group {
    /// A group from the server's previous run.
    pub(super) fn restored(in_all: u64) -> Self {
        Group { in_all, adopts: true, ..Group::default() }
    }

    /// Adds a member.
    pub(super) fn join(&mut self, transition: &Transition, now: MonoTime) {
        self.members += 1;
        self.in_all += 1;
        if let Some(incident) = transition.incident {
            // Agents that failed before the incident was recognised count as well.
            self.in_all = self.in_all.max(u64::from(incident.agents));
            self.may_grow_until = self.may_grow_until.max(incident.open_until + MAY_GROW_FOR);
        }
        self.causes[transition.cause.index()] += 1;
        self.may_grow_until = self.may_grow_until.max(now + MAY_GROW_FOR);
        self.is_outdated = true;
    }

    /// Adds a member of the previous run that a sweep has found.
    pub(super) fn reclaim(&mut self, transition: &Transition) {
        self.members += 1;
        self.in_all = self.in_all.max(self.members);
        self.causes[transition.cause.index()] += 1;
        self.is_outdated = true;
    }

    /// Removes a member.
    pub(super) fn leave(&mut self) {
        self.members = self.members.saturating_sub(1);
        self.is_outdated = true;
    }

    /// When the group is over; `None` while it has members or waits for those of the previous run.
    pub(super) fn over_at(&self) -> Option<MonoTime> {
        (self.members == 0 && !self.adopts).then_some(self.may_grow_until)
    }

    /// Writes the present numbers into the annotations.
    pub(super) fn update(&mut self, alert: &mut Alert) {
        self.is_outdated = false;
        let Group { members, in_all, .. } = *self;
        let mut put = |name: &str, value: String| alert.annotations.insert(name.to_owned(), value);
        put("agents", members.to_string());
        put("agents_in_all", in_all.to_string());
        let causes = counted(causes_by_count(&self.causes));
        if !causes.is_empty() {
            put("causes", causes);
        }
        let since = alert.starts_at;
        let summary = match &alert.subject {
            Subject::Incident { host, .. } => {
                let state = &alert.state;
                format!(
                    "{in_all} agents of {host} came to be {state} together, from {since} on; {members} are not well yet"
                )
            }
            Subject::Many | Subject::Agent(_) => {
                format!(
                    "{members} more agents are in alarm than have alerts of their own; {in_all} since {since}"
                )
            }
        };
        put("summary", summary);
    }
}

/// The alert of an incident, out of the first transition that names it.
pub(super) fn incident(problem: Problem, transition: &Transition, host: &str, now: WallClock) -> Alert {
    let origin = transition.agent.origin;
    let (host, state) = (origin.host(host), transition.to.as_str());
    let starts_at = now.at(transition.at);
    let instance = format!("many[{state} {starts_at}]@{}", origin.place(&host));
    let labels = [
        ("alertname", problem.group_name()),
        ("severity", problem.severity()),
        ("instance", &instance),
        ("host", &host),
        ("state", state),
        ("incident", &starts_at.to_string()),
    ];
    let labels = texts(labels);
    alert(labels, Subject::Incident { place: origin, host }, state, starts_at)
}

/// The alert for all agents without one of their own.
pub(super) fn many(host: &str, starts_at: WallTime) -> Alert {
    let labels = texts([
        ("alertname", "VartaManyAgentsUnhealthy"),
        ("severity", "critical"),
        ("instance", &format!("many@{host}")),
        ("host", host),
    ]);
    alert(labels, Subject::Many, "", starts_at)
}

/// Whether an agent in alarm may be a member of this alert of the server's previous run.
pub(super) fn may_adopt(alert: &Alert, transition: &Transition) -> bool {
    match &alert.subject {
        Subject::Incident { place, .. } => {
            *place == transition.agent.origin && alert.state == transition.to.as_str()
        }
        Subject::Many => true,
        Subject::Agent(_) => false,
    }
}

fn texts<const N: usize>(texts: [(&str, &str); N]) -> Texts {
    texts.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn alert(labels: Texts, subject: Subject, state: &str, starts_at: WallTime) -> Alert {
    let since = starts_at.to_string();
    Alert {
        labels,
        annotations: texts([("state", state), ("since", &since)]),
        starts_at,
        ends_at: None,
        subject,
        state: state.to_owned(),
        cause: String::new(),
        is_flapping: false,
        is_said: false,
    }
}
