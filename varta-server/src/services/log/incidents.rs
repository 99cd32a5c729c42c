//! Log lines for incidents: one when an incident begins and one when it is over, instead of a warning for
//! each of its agents.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::describe::{causes_by_count, counted};
use crate::domain::tracker::{Cause, Transition, Verdict};
use crate::services::log::names::NameCounts;

/// The time without a new agent after which an incident is over.
const QUIET_FOR: Duration = Duration::from_secs(2);
/// The most open incidents. At the limit the oldest is closed early.
const MAX_OPEN_INCIDENTS: usize = 64;

/// The open incidents by number.
#[derive(Debug, Default)]
pub(super) struct OpenIncidents(BTreeMap<NonZeroU64, Summary>);

/// The counts of one incident for its summary.
#[derive(Debug)]
struct Summary {
    origin: Origin,
    to: Verdict,
    began_at: MonoTime,
    last_at: MonoTime,
    agents: u32,
    /// Indexed by [`Cause::index`]; counts the agents that joined since the incident began.
    causes: [u32; Cause::NAMES.len()],
    names: NameCounts,
    over_at: Instant,
}

impl OpenIncidents {
    /// The earliest time at which an incident is over.
    pub(super) fn over_at(&self) -> Option<Instant> {
        self.0.values().map(|summary| summary.over_at).min()
    }

    /// Adds a transition to its incident, if it has one. The first of an incident is logged.
    pub(super) fn note(&mut self, transition: &Transition, now: Instant) {
        let Some(incident) = transition.incident else { return };
        if !self.0.contains_key(&incident.number) {
            if self.0.len() >= MAX_OPEN_INCIDENTS
                && let Some((number, summary)) = self.0.pop_first()
            {
                summary.log(number);
            }
            let summary = Summary::begin(transition, now);
            tracing::warn!(
                target: "varta::incident",
                incident = incident.number,
                to = summary.to.as_str(),
                "incident {}: many agents of {} are {} at once; those that follow are summed up when it is over",
                incident.number,
                IncidentKey(summary.origin),
                summary.to
            );
            self.0.insert(incident.number, summary);
        }
        if let Some(summary) = self.0.get_mut(&incident.number) {
            summary.agents = incident.agents;
            summary.add(transition, now + incident.open_until.since(transition.at));
        }
    }

    /// Logs and removes the incidents that are over by `now`.
    pub(super) fn close(&mut self, now: Instant) {
        self.0.retain(|number, summary| {
            let is_open = summary.over_at > now;
            if !is_open {
                summary.log(*number);
            }
            is_open
        });
    }

    /// Logs and removes all incidents, at the end.
    pub(super) fn close_all(&mut self) {
        while let Some((number, summary)) = self.0.pop_first() {
            summary.log(number);
        }
    }
}

/// The display form of an origin.
struct IncidentKey(Origin);

impl std::fmt::Display for IncidentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.address() {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("this host"),
        }
    }
}

impl Summary {
    fn begin(transition: &Transition, now: Instant) -> Self {
        Summary {
            origin: transition.agent.origin,
            to: transition.to,
            began_at: transition.at,
            last_at: transition.at,
            agents: 0,
            causes: [0; Cause::NAMES.len()],
            names: NameCounts::default(),
            over_at: now + QUIET_FOR,
        }
    }

    /// Adds a transition. `quiet_from` is the time after which no further one is expected, except one that
    /// follows closely.
    fn add(&mut self, transition: &Transition, quiet_from: Instant) {
        self.last_at = transition.at;
        self.over_at = quiet_from + QUIET_FOR;
        self.causes[transition.cause.index()] += 1;
        self.names.add(&transition.agent.name);
    }

    /// The most frequent cause, and the number of agents for each cause.
    fn causes(&self) -> (&'static str, String) {
        let causes = causes_by_count(&self.causes);
        let common = causes.first().map_or("none", |(cause, _)| cause);
        (common, counted(causes))
    }

    fn log(&self, number: NonZeroU64) {
        let Summary { origin, to, agents, .. } = *self;
        let lasted = self.last_at.since(self.began_at);
        let (cause, causes) = self.causes();
        let names = &self.names;
        tracing::warn!(
            target: "varta::incident",
            incident = number,
            to = to.as_str(),
            cause,
            agents,
            "incident {number} is over: {agents} agents of {} became {to} within {lasted:.3?}; of those that were summed up \
             by cause {causes}, by name {names}",
            IncidentKey(origin)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tracker::Incident;
    use crate::domain::tracker::tests::sample;

    fn fallen(number: u64, agents: u32, name: &str, cause: Cause) -> Transition {
        let number = NonZeroU64::new(number);
        sample::transition(name)
            .pid(agents)
            .to(Verdict::Stalled, cause)
            .at(MonoTime::from_millis(u64::from(agents)))
            .incident(number.map(|number| Incident { number, agents, open_until: MonoTime::START }))
    }

    #[test]
    fn one_is_summed_up_by_cause_and_name_and_over_when_nothing_is_added() {
        let (mut open, start) = (OpenIncidents::default(), Instant::now());
        for agents in 10..=50 {
            let cause = if agents % 4 == 0 { Cause::Silent } else { Cause::Stopped };
            open.note(&fallen(1, agents, &format!("worker{}", agents % 10), cause), start);
        }
        let summary = &open.0[&NonZeroU64::MIN];
        assert_eq!(summary.agents, 50);
        assert_eq!(summary.causes(), ("stopped", "stopped 31, silent 10".to_owned()));
        let names = summary.names.to_string();
        assert!(names.starts_with("worker0 5, ") && names.ends_with(", others 8"), "{names}");
        assert_eq!(open.over_at(), Some(start + QUIET_FOR));
        open.close(start);
        assert!(open.over_at().is_some());
        open.close(start + QUIET_FOR);
        assert_eq!(open.over_at(), None);
    }

    #[test]
    fn there_are_never_more_open_than_there_may_be() {
        let (mut open, now) = (OpenIncidents::default(), Instant::now());
        for number in 1..1_000 {
            open.note(&fallen(number, 10, "worker", Cause::Silent), now);
        }
        assert_eq!(open.0.len(), MAX_OPEN_INCIDENTS);
        open.close_all();
        assert_eq!(open.over_at(), None);
    }
}
