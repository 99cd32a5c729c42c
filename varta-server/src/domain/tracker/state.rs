//! The state of the tracker, which `rules` change and `queries` read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use crate::base::rate_limit::{RateLimit, Usage};
use crate::base::time::{MonoTime, nanos};
use crate::domain::beat::{Origin, RemoteEndpoint, Transport};
use crate::domain::labels::Labels;
use crate::domain::process::{Dossier, ProcessId};
use crate::domain::tracker::agents::agent::{AgentCold, AskedTimeout, IndexKey};
use crate::domain::tracker::agents::expected::ExpectedTracker;
use crate::domain::tracker::agents::jobs::JobTable;
use crate::domain::tracker::agents::named::NamedAgents;
use crate::domain::tracker::agents::names::{NameSource, Names};
use crate::domain::tracker::agents::origins::{SourceId, Sources};
use crate::domain::tracker::agents::pending_hellos::PendingHellos;
use crate::domain::tracker::agents::places::Places;
use crate::domain::tracker::agents::port_history::PortHistory;
use crate::domain::tracker::agents::request::TrackerRequest;
use crate::domain::tracker::agents::snapshot::{AgentSnapshot, RegistryChange};
use crate::domain::tracker::agents::table::Table;
use crate::domain::tracker::agents::view::Statistics;
use crate::domain::tracker::detection::adaptive::ArrivalHistories;
use crate::domain::tracker::detection::incidents::Incidents;
use crate::domain::tracker::detection::inspection_budget::InspectionBudget;
use crate::domain::tracker::detection::observer_gaps::ObserverGaps;
use crate::domain::tracker::detection::silence_sample::SilenceSample;
use crate::domain::tracker::detection::wheel::Wheel;
use crate::domain::tracker::policy::Policy;
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::{AgentId, Transition};
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The maximum number of agents that one call of [`Tracker::handle_timeout`] checks, so that a million
/// expiries do not stop ingest.
pub(super) const LOOKS_PER_TURN: usize = 512;
/// First checks, at half of a silence, are rounded up to so many common times per stall timeout, or up to
/// twice as many.
const LOOKS_IN_A_SILENCE: u64 = 16;
/// The smallest number of beats that are looked up together; fewer are looked up one after the other.
pub(super) const WORTH_A_GUESS: usize = 4;
/// The name of a process whose name the kernel does not show.
pub(super) const NAMELESS: &str = "unknown";

/// Knows all agents, and emits a transition for each change of a verdict.
#[derive(Debug)]
pub struct Tracker {
    pub(super) policy: Policy,
    pub(super) agent_rate: RateLimit,
    pub(super) total_rate: RateLimit,
    pub(super) total_usage: Usage,
    pub(super) agents: Table,
    pub(super) sources: Sources,
    /// By [`Transport::index`].
    pub(super) port_histories: [PortHistory; Transport::ALL.len()],
    pub(super) names: Names,
    pub(super) places: Places,
    pub(super) adaptive_timeouts: ArrivalHistories,
    pub(super) wheel: Wheel,
    /// Transitions to poll. Each `handle_*` fills the queue and the caller drains it, so that the work of one
    /// call bounds it.
    pub(super) transitions: VecDeque<Transition>,
    /// Requests to poll; drained and bounded like `transitions`.
    pub(super) requests: VecDeque<TrackerRequest>,
    /// Pids whose shared memory pages must be read; drained and bounded like `transitions`.
    pub(super) unread: VecDeque<u32>,
    /// Registry changes to poll; drained and bounded like `transitions`.
    pub(super) registry_changes: VecDeque<RegistryChange>,
    /// Whether the states of agents are among them.
    pub(super) is_persisted: bool,
    /// Agents that were down or gone at some time, in that order; some have come back since. At most two for
    /// each slot.
    pub(super) departed: VecDeque<u32>,
    pub(super) waiting: PendingHellos,
    pub(super) named: NamedAgents,
    pub(super) jobs: JobTable,
    pub(super) expected: ExpectedTracker,
    /// The slots to which the current rules have not been applied yet.
    pub(super) rules_pending: Range<usize>,
    /// Whether a new policy, which has not reached all agents, makes some of their deadlines earlier.
    pub(super) deadlines_are_sooner: bool,
    pub(super) inspection_budget: InspectionBudget,
    pub(super) population: [usize; Verdict::NAMES.len()],
    pub(super) observer_gaps: ObserverGaps,
    /// By [`Transport::index`].
    pub(super) crowds: [SilenceSample; Transport::ALL.len()],
    pub(super) incidents: Incidents,
    /// When datagrams were last lost on the way, or a queue was last full, by [`Transport::index`].
    pub(super) lost_at: [Option<MonoTime>; Transport::ALL.len()],
    pub(super) statistics: Statistics,
}

impl Tracker {
    /// Makes a tracker without agents.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let awaited = ExpectedTracker::new(&policy.expected);
        let jobs = JobTable::new(&policy.jobs);
        Tracker {
            agent_rate: RateLimit::unlimited_if_zero(policy.max_beat_rate),
            total_rate: RateLimit::unlimited_if_zero(policy.max_total_rate),
            inspection_budget: InspectionBudget::new(policy.looks_per_second),
            adaptive_timeouts: ArrivalHistories::new(policy.arrival),
            agents: Table::with_room_for(policy.max_agents),
            policy,
            total_usage: Usage::default(),
            sources: Sources::default(),
            port_histories: Default::default(),
            names: Names::default(),
            places: Places::default(),
            wheel: Wheel::new(),
            transitions: VecDeque::new(),
            requests: VecDeque::new(),
            unread: VecDeque::new(),
            registry_changes: VecDeque::new(),
            is_persisted: false,
            departed: VecDeque::new(),
            waiting: PendingHellos::default(),
            named: NamedAgents::default(),
            jobs,
            expected: awaited,
            rules_pending: 0..0,
            deadlines_are_sooner: false,
            population: [0; Verdict::NAMES.len()],
            observer_gaps: ObserverGaps::default(),
            crowds: Default::default(),
            incidents: Incidents::default(),
            lost_at: [None; Transport::ALL.len()],
            statistics: Statistics::default(),
        }
    }

    /// The stall timeout of an agent.
    pub(super) fn stall_after(&self, number: u32) -> Duration {
        self.stall_after_of(number, self.agents.rest(number))
    }

    /// The stall timeout by a rule for the name, or a request, or what was learned, or the announced interval,
    /// or the default.
    pub(super) fn stall_after_of(&self, number: u32, rest: &AgentCold) -> Duration {
        if let Some(requested) = rest.requested_timeout() {
            return requested;
        }
        let of_interval = rest.three_intervals();
        // An agent that announces that it will beat less often than it did is not missed before it does.
        let holds =
            |learned: &Duration| of_interval.is_none_or(|three| *learned * AskedTimeout::INTERVALS > three);
        let learned = self.adaptive_timeouts.stall_after(number).filter(holds);
        learned.or(of_interval).unwrap_or(self.policy.stall_after)
    }

    pub(super) fn deadline(&self, number: u32) -> MonoTime {
        let slot = self.agents.slot(number);
        if slot.is_unawaited() {
            return MonoTime::NEVER;
        }
        let deadline = self.observer_gaps.deadline(slot.last_beat, self.stall_after(number));
        let busy_until = self.agents.rest(number).extra.as_ref().map(|extra| extra.busy_until);
        busy_until.map_or(deadline, |busy_until| deadline.max(busy_until))
    }

    /// When an agent that has just beaten is checked first: at half of its silence or a little later, so that
    /// one wake-up serves many agents.
    pub(super) fn first_check(&self, number: u32) -> MonoTime {
        let (deadline, stall_after) = (self.deadline(number), self.stall_after(number));
        let grain = (nanos(stall_after) / LOOKS_IN_A_SILENCE).max(1);
        // The slots of the wheel begin at multiples of powers of two.
        let grain = 1 << grain.ilog2();
        let half = deadline.before(stall_after / 2).as_nanos().checked_next_multiple_of(grain);
        let check = half.map_or(deadline, |half| MonoTime::from_nanos(half).min(deadline));
        let is_pending = !self.agents.slot(number).is_counter_due();
        let moves_until = self.counter_deadline(number).filter(|_| is_pending);
        moves_until.map_or(check, |until| check.min(until))
    }

    /// The identity of an agent.
    pub(super) fn id(&self, number: u32) -> AgentId {
        let slot = self.agents.slot(number);
        let rest = self.agents.rest(number);
        AgentId {
            name: self.names.get(rest.name).clone(),
            origin: slot.origin(&self.sources),
            pid: slot.key.pid,
            twin: rest.twin,
        }
    }

    /// The agent with this identity, whatever its name; `None` for one that has not come.
    pub(super) fn find(&self, agent: &AgentId) -> Option<u32> {
        let source = self.sources.find(agent.origin).filter(|_| agent.pid != 0)?;
        if source == SourceId::LOCAL {
            return self.agents.find(IndexKey::local(agent.pid));
        }
        let key = IndexKey { source, pid: agent.pid, lane: RemoteEndpoint::default() };
        self.agents.twins(key).find(|number| self.agents.rest(*number).twin == agent.twin)
    }

    /// The labels of an agent.
    pub(super) fn labels(&self, number: u32) -> Labels {
        self.agents.rest(number).extra.as_ref().map_or_else(Labels::default, |extra| extra.labels.clone())
    }

    /// The unit of this host's service manager that an agent runs in.
    pub(super) fn unit(&self, number: u32) -> Option<Arc<str>> {
        self.unit_of(self.agents.rest(number)).cloned()
    }

    /// The same, by the agent's cold part.
    pub(super) fn unit_of<'a>(&'a self, rest: &'a AgentCold) -> Option<&'a Arc<str>> {
        match rest.name_source {
            NameSource::Unit => Some(self.names.get(rest.name)),
            NameSource::Common | NameSource::Group | NameSource::Agent => rest.extra.as_ref()?.unit.as_ref(),
        }
    }

    /// The local process that an agent is or was, as far as it is known.
    pub(super) fn incarnation(&self, number: u32) -> Option<ProcessId> {
        let IndexKey { source, pid, .. } = self.agents.slot(number).key;
        let started = self.agents.rest(number).started.filter(|_| source == SourceId::LOCAL)?;
        Some(ProcessId { pid, start_time: started.time(), tag: started.tag() })
    }

    /// The local process that an agent is, as far as it is known and alive.
    pub(super) fn process(&self, number: u32) -> Option<ProcessId> {
        self.incarnation(number).filter(|_| !self.agents.rest(number).is_dead)
    }

    /// How long an agent has been silent, the time before this server's start included.
    pub(super) fn silence(&self, number: u32, now: MonoTime) -> Duration {
        now.since(self.agents.slot(number).last_beat) + self.agents.rest(number).silent_before()
    }

    pub(super) fn recount(&mut self, before: Verdict, after: Verdict) {
        self.population[before.index()] -= 1;
        self.population[after.index()] += 1;
    }

    pub(super) fn announce(&mut self, number: u32, mut change: TransitionDetails) {
        let to = self.agents.slot(number).verdict.unwrap_or(Verdict::Up(Status::Ok));
        if !self.jobs.is_empty() {
            change.cause = self.note_run(number, to, &change);
        }
        let slot = self.agents.slot(number);
        let has_fallen = matches!(to, Verdict::Stalled | Verdict::Down);
        let incident = has_fallen.then(|| self.incidents.note(slot.key.source, to, change.at)).flatten();
        let transition = self.transition_of(number, to, change);
        self.transitions.push_back(Transition { incident, ..transition });
        if matches!(to, Verdict::Up(_)) {
            self.end_doubt(number);
        }
        self.note(number);
    }

    /// The transition of an agent to `to`, outside an incident.
    pub(super) fn transition_of(&self, number: u32, to: Verdict, change: TransitionDetails) -> Transition {
        let TransitionDetails {
            from,
            cause,
            at,
            silence,
            detection_latency,
            dossier,
            oom_cgroup,
            predecessor,
            successor,
        } = change;
        let has_process = !matches!(self.agents.slot(number).origin(&self.sources), Origin::Named { .. });
        let may_be_replaced = to == Verdict::Down && cause != Cause::Panicked && has_process;
        Transition {
            agent: self.id(number),
            labels: self.labels(number),
            unit: self.unit(number),
            said: self.agents.rest(number).extra.as_ref().and_then(|extra| extra.said.clone()),
            predecessor,
            successor,
            settles_at: if may_be_replaced { at.max(self.settles_at(number)) } else { at },
            process: self.incarnation(number),
            from,
            to,
            cause,
            at,
            silence,
            silence_is_at_least: self.agents.rest(number).silent_at_least(),
            last: self.agents.slot(number).last_word(),
            stall_after: self.stall_after(number),
            detection_latency,
            mistake: None,
            dossier,
            oom_cgroup,
            incident: None,
        }
    }

    /// Emits the state of an agent, if it is persisted.
    pub(super) fn note(&mut self, number: u32) {
        if self.is_persisted
            && let Some(agent) = self.to_be_remembered(number)
        {
            self.registry_changes.push_back(RegistryChange::Known(Box::new(agent)));
        }
    }

    pub(super) fn to_be_remembered(&self, number: u32) -> Option<AgentSnapshot> {
        let slot = self.agents.slot(number);
        let verdict = slot.verdict?;
        let rest = self.agents.rest(number);
        let extra = rest.extra.as_deref();
        Some(AgentSnapshot {
            agent: self.id(number),
            name_source: rest.name_source,
            lane: slot.key.lane,
            start_time: rest.start_time(),
            verdict,
            last: slot.last_word(),
            labels: self.labels(number),
            unit: extra.and_then(|extra| extra.unit.clone()),
            is_unawaited: slot.is_unawaited(),
            said: extra.and_then(|extra| extra.said.clone()),
            asked: extra.and_then(|extra| extra.asked).map(AskedTimeout::timeout),
            busy_until: extra.map_or(MonoTime::START, |extra| extra.busy_until),
            stalls: rest.stalls,
            lost: rest.lost,
            last_beat: slot.last_beat,
            silent_before: rest.silent_before(),
            silent_at_least: rest.silent_at_least(),
            stood: slot.is_stuck().then(|| self.stood_for(number, slot.last_beat)),
        })
    }
}

/// What a transition says in addition to the state of its agent.
#[derive(Debug)]
pub(super) struct TransitionDetails {
    pub(super) from: Option<Verdict>,
    pub(super) cause: Cause,
    pub(super) at: MonoTime,
    pub(super) silence: Duration,
    pub(super) detection_latency: Option<Duration>,
    pub(super) dossier: Option<Arc<Dossier>>,
    pub(super) oom_cgroup: Option<Arc<str>>,
    /// The agent whose place this one takes.
    pub(super) predecessor: Option<AgentId>,
    /// The agent that has taken the place of this one.
    pub(super) successor: Option<AgentId>,
}

impl TransitionDetails {
    /// Details with no latency, dossier, cgroup or predecessor.
    pub(super) fn new(from: Option<Verdict>, cause: Cause, at: MonoTime, silence: Duration) -> Self {
        TransitionDetails {
            from,
            cause,
            at,
            silence,
            detection_latency: None,
            dossier: None,
            oom_cgroup: None,
            predecessor: None,
            successor: None,
        }
    }

    pub(super) fn of_first_beat(at: MonoTime) -> Self {
        TransitionDetails::new(None, Cause::FirstBeat, at, Duration::ZERO)
    }
}
