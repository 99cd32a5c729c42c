//! The whole state of a tracker as a value, with which the tracker of another process goes on: the same agents in
//! the same slots, with their sessions, deadlines and what was learned of them.
//!
//! Times are those of the clock of the tracker that gave it, which the next one must go on with. What is not here
//! is found again: the entries of the wheel, the budget of inspections, and requests about processes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::rate_limit::Usage;
use crate::base::time::MonoTime;
use crate::domain::beat::{Hello, Origin, Sender, Transport};
use crate::domain::process::ProcessPlace;
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot};
use crate::domain::tracker::agents::expected::ExpectedTracker;
use crate::domain::tracker::agents::jobs::JobSnapshot;
use crate::domain::tracker::agents::names::Names;
use crate::domain::tracker::agents::origins::Sources;
use crate::domain::tracker::agents::pending_hellos::PendingHellos;
use crate::domain::tracker::agents::port_history::PortHistory;
use crate::domain::tracker::agents::table::Table;
use crate::domain::tracker::agents::view::Statistics;
use crate::domain::tracker::detection::adaptive::{ArrivalHistories, ArrivalHistory};
use crate::domain::tracker::detection::incidents::Incidents;
use crate::domain::tracker::detection::observer_gaps::ObserverGaps;
use crate::domain::tracker::policy::Policy;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The version of the form of [`TrackerState`]. It is raised when any type in it changes.
pub(crate) const TRACKER_STATE_VERSION: u32 = 7;

/// The state as it is written.
#[derive(Debug, Serialize)]
pub(crate) struct TrackerStateRef<'t> {
    slots: &'t [AgentHot],
    rests: &'t [AgentCold],
    vacant: &'t [u32],
    sources: &'t Sources,
    names: &'t Names,
    places: Vec<(u32, &'t ProcessPlace)>,
    port_histories: &'t [PortHistory; Transport::ALL.len()],
    histories: &'t [ArrivalHistory],
    departed: Vec<u32>,
    waiting: Vec<(&'t Sender, &'t Hello)>,
    expected: &'t ExpectedTracker,
    population: [usize; Verdict::NAMES.len()],
    observer_gaps: &'t ObserverGaps,
    incidents: &'t Incidents,
    lost_at: [Option<MonoTime>; Transport::ALL.len()],
    total_usage: Usage,
    statistics: Statistics,
    /// The arrival policy under which `histories` were learned.
    learned_by: String,
    jobs: Vec<JobSnapshot>,
}

/// The state as it is read.
#[derive(Debug, Deserialize)]
pub(crate) struct TrackerState {
    slots: Vec<AgentHot>,
    rests: Vec<AgentCold>,
    vacant: Vec<u32>,
    sources: Sources,
    names: Names,
    places: Vec<(u32, ProcessPlace)>,
    port_histories: [PortHistory; Transport::ALL.len()],
    histories: Vec<ArrivalHistory>,
    departed: Vec<u32>,
    waiting: Vec<(Sender, Hello)>,
    expected: ExpectedTracker,
    population: [usize; Verdict::NAMES.len()],
    observer_gaps: ObserverGaps,
    incidents: Incidents,
    lost_at: [Option<MonoTime>; Transport::ALL.len()],
    total_usage: Usage,
    statistics: Statistics,
    learned_by: String,
    jobs: Vec<JobSnapshot>,
}

impl Tracker {
    /// The whole state. Transitions, requests and changes that wait to be polled are not in it.
    #[must_use]
    pub(crate) fn state(&self) -> TrackerStateRef<'_> {
        let (slots, rests, vacant) = self.agents.parts();
        TrackerStateRef {
            slots,
            rests,
            vacant,
            sources: &self.sources,
            names: &self.names,
            places: self.places.iter().collect(),
            port_histories: &self.port_histories,
            histories: self.adaptive_timeouts.all(),
            departed: self.departed.iter().copied().collect(),
            waiting: self.waiting.iter().collect(),
            expected: &self.expected,
            population: self.population,
            observer_gaps: &self.observer_gaps,
            incidents: &self.incidents,
            lost_at: self.lost_at,
            total_usage: self.total_usage,
            statistics: self.statistics(),
            learned_by: format!("{:?}", self.policy.arrival),
            jobs: self.job_snapshots(),
        }
    }

    /// A tracker that goes on from the state of another, under this policy, which applies to the agents as after
    /// [`Tracker::handle_policy`]. Nothing happens to any agent by it.
    ///
    /// # Errors
    ///
    /// What makes no sense in the state.
    pub(crate) fn resume(
        policy: Policy,
        state: TrackerState,
        now: MonoTime,
    ) -> Result<Tracker, &'static str> {
        let TrackerState { slots, rests, vacant, mut sources, mut names, mut expected, .. } = state;
        if slots.len() != rests.len() {
            return Err("the two parts of the agents are not of one length");
        }
        let is_slot = |number: &u32| (*number as usize) < slots.len();
        let is_vacant = |number: &u32| slots.get(*number as usize).is_some_and(|slot| slot.verdict.is_none());
        let occupied = || slots.iter().zip(&rests).filter(|(slot, _)| slot.verdict.is_some());
        if !vacant.iter().all(is_vacant) || vacant.len() + occupied().count() != slots.len() {
            return Err("the vacant slots are not those without an agent");
        }
        if !occupied().all(|(slot, rest)| sources.has(slot.key.source) && names.has(rest.name)) {
            return Err("an agent has no origin or no name");
        }
        if !state.departed.iter().all(is_slot) || !state.places.iter().all(|(number, _)| is_slot(number)) {
            return Err("it names a slot that there is not");
        }
        if !names.departed_are(is_slot) {
            return Err("a name has had an agent that there is not");
        }
        sources.reindex();
        names.reindex();
        if !expected.reindex() {
            return Err("the expected agents do not add up");
        }
        let mut tracker = Tracker::new(policy);
        let Policy { max_agents, arrival, ref rules, expected: ref wanted, .. } = tracker.policy;
        let (rules, wanted) = (rules.clone(), wanted.clone());
        tracker.agents = Table::from_parts(max_agents, slots, rests, vacant);
        if state.learned_by == format!("{arrival:?}") {
            tracker.adaptive_timeouts = ArrivalHistories::resume(arrival, state.histories);
        }
        for (number, place) in state.places {
            tracker.places.set(number, Some(place));
        }
        let mut waiting = PendingHellos::default();
        for (sender, hello) in state.waiting {
            waiting.put(sender, hello);
        }
        tracker.inspection_budget.set_refused(state.statistics.looks_refused);
        tracker.sources = sources;
        tracker.names = names;
        tracker.port_histories = state.port_histories;
        tracker.departed = state.departed.into();
        tracker.waiting = waiting;
        tracker.expected = expected;
        tracker.population = state.population;
        tracker.observer_gaps = state.observer_gaps;
        tracker.incidents = state.incidents;
        tracker.lost_at = state.lost_at;
        tracker.total_usage = state.total_usage;
        tracker.statistics = state.statistics;
        for number in 0..tracker.agents.slots() {
            let number = u32::try_from(number).expect("slots have numbers of that size");
            let slot = tracker.agents.slot(number);
            if slot.verdict.is_some() && matches!(slot.origin(&tracker.sources), Origin::Named { .. }) {
                let name = Arc::clone(tracker.names.get(tracker.agents.rest(number).name));
                tracker.named.add(&name, number);
            }
        }
        tracker.restore_jobs(state.jobs, None);
        // Each agent is looked at once, and what its deadline is goes into the wheel.
        for number in 0..tracker.agents.slots() {
            let number = u32::try_from(number).expect("slots have numbers of that size");
            if tracker.agents.slot(number).verdict.is_some() {
                tracker.wheel.arm(number, now);
            }
        }
        tracker.deadlines_are_sooner = true;
        tracker.handle_rules(rules, &wanted, now);
        Ok(tracker)
    }
}
