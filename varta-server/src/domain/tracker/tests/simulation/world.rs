//! A world: all agents, and the events to come.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;

use crate::domain::beat::{ReceivedBeat, ReceivedControl};
use crate::domain::process::ProcessId;
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::tracker::detection::arrival::{ArrivalPolicy, Bounds, Kind, Phi};
use crate::domain::tracker::tests::simulation::Scenario;
use crate::domain::tracker::tests::simulation::chance::Chance;
use crate::domain::tracker::tests::simulation::reference::Reference;
use crate::domain::tracker::tests::simulation::worker::Worker;
use crate::domain::tracker::tests::{ProcessTable, *};

#[derive(Clone, Debug)]
pub(super) enum Event {
    /// An agent's timer for a beat expires.
    Wake {
        agent: usize,
        handle: u32,
    },
    /// Something happens to an agent.
    Fate {
        agent: usize,
    },
    /// A beat from `handle` arrives.
    Beat {
        beat: ReceivedBeat,
        handle: u32,
    },
    Control {
        control: ReceivedControl,
        handle: u32,
    },
    Death {
        pid: u32,
        start_time: u64,
        death: ExitStatus,
    },
    /// The server pauses for this long.
    ServerPause(Duration),
    /// Many beats of unknown agents.
    Flood {
        first: u32,
        count: u32,
    },
    /// The tracker is called without need.
    Call,
    /// The queue of the Unix socket is full.
    QueueFull,
}

pub(super) struct Simulation {
    pub(super) scenario: Scenario,
    pub(super) chance: Chance,
    pub(super) tracker: Tracker,
    pub(super) reference: Reference,
    pub(super) processes: ProcessTable,
    pub(super) workers: Vec<Worker>,
    pub(super) events: BTreeMap<(MonoTime, u64), Event>,
    pub(super) sequence: u64,
    pub(super) now: MonoTime,
    /// The events that arrived while the server was paused, and when it goes on.
    pub(super) away: Option<(MonoTime, MonoTime, Vec<Event>)>,
    pub(super) answers_looks: bool,
    pub(super) watched: HashSet<ProcessId>,
    pub(super) changes: Vec<Transition>,
    pub(super) stalled: usize,
    /// How often an adaptive timeout differed from the one before.
    pub(super) learned: usize,
    pub(super) log: Log,
}

/// Where the log of all events goes.
pub(super) enum Log {
    None,
    Kept(String),
    Shown,
}

impl Simulation {
    pub(super) fn new(scenario: Scenario, log: Log) -> Self {
        let mut chance = Chance::new(scenario.seed);
        // A second generator, so that a seed decides the same world as before mass silence was simulated.
        let mut of_crowds = Chance::new(!scenario.seed);
        let policy = Policy {
            stall_after: chance.millis(500, 4_000),
            arrival: arrival_policy(&mut chance),
            forget_after: chance.one_of(&[Duration::from_secs(20), Duration::from_secs(86_400)]),
            max_beat_rate: 0,
            max_agents: 40,
            max_agents_per_source: 30,
            mass_silence_min_agents: of_crowds.one_of(&[0, 2, 3]),
            ..Policy::default()
        };
        let answers_looks = chance.happens(0.8);
        let mut simulation = Simulation {
            scenario,
            tracker: Tracker::new(policy.clone()),
            reference: Reference::new(policy, answers_looks),
            processes: ProcessTable::default(),
            workers: Vec::new(),
            events: BTreeMap::new(),
            sequence: 0,
            now: MonoTime::START,
            away: None,
            answers_looks,
            watched: HashSet::new(),
            changes: Vec::new(),
            stalled: 0,
            learned: 0,
            log,
            chance,
        };
        for number in 0..scenario.agents {
            let at = MonoTime::START + simulation.chance.millis(0, 3_000);
            let worker = Worker::new(number, simulation.chance.split(), at);
            simulation.spawn(&worker);
            simulation.workers.push(worker);
            let agent = usize::from(number);
            simulation.plan(at, Event::Wake { agent, handle: 1 });
            simulation.plan_fate(agent);
        }
        simulation.plan_for_the_server();
        simulation.plan_full_queues();
        simulation
    }

    pub(super) fn plan(&mut self, at: MonoTime, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    pub(super) fn plan_fate(&mut self, agent: usize) {
        let after = self.workers[agent].chance.millis(500, 20_000);
        self.plan(self.now + after, Event::Fate { agent });
    }

    /// The queue is full at some moments, in half of the worlds.
    fn plan_full_queues(&mut self) {
        // A third generator, so that a seed decides the same world as before full queues were simulated.
        let mut chance = Chance::new(self.scenario.seed.rotate_left(32));
        if chance.happens(0.5) {
            return;
        }
        for _ in 0..chance.below(12) {
            let at = MonoTime::START + chance.millis(0, self.scenario.seconds * 1_000);
            self.plan(at, Event::QueueFull);
        }
    }

    fn plan_for_the_server(&mut self) {
        let end = self.scenario.seconds * 1_000;
        for _ in 0..self.chance.below(4) {
            let at = MonoTime::START + self.chance.millis(0, end);
            // Observer gaps have a resolution of milliseconds.
            let length = self.chance.one_of(&[20, 300, 2_000, 12_000]);
            let length = Duration::from_millis(1 + self.chance.below(length));
            self.plan(at, Event::ServerPause(length));
        }
        for _ in 0..5 {
            let at = MonoTime::START + self.chance.millis(0, end);
            self.plan(at, Event::Call);
        }
        if self.chance.happens(0.1) {
            let at = MonoTime::START + self.chance.millis(0, end);
            self.plan(at, Event::Flood { first: 0, count: 60 });
        }
    }

    pub(super) fn spawn(&mut self, worker: &Worker) {
        if let Some(start_time) = worker.start_time.and_then(NonZeroU64::new) {
            let name = "worker".to_owned();
            let identity = ProcessIdentity::of_command(start_time, name);
            self.processes.processes.insert(worker.sender.pid, identity);
        }
    }

    /// Runs all events up to the end of the scenario.
    pub(super) fn run(mut self) -> Self {
        let end = MonoTime::from_secs(self.scenario.seconds);
        loop {
            let next_event = self.events.first_key_value().map(|((at, _), _)| *at);
            let wake = if self.away.is_some() { None } else { self.tracker.poll_timeout() };
            let back = self.away.as_ref().map(|(_, to, _)| *to);
            let next = [next_event, wake, back].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { return self };
            self.now = self.now.max(at);
            // What has arrived is handled before the passing of time.
            if next_event == Some(at) {
                if let Some((_, event)) = self.events.pop_first() {
                    self.happen(event);
                }
            } else if back == Some(at) {
                self.go_on();
            } else {
                self.tracker.handle_timeout(self.now);
                self.settle();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { agent, handle } => self.wake(agent, handle),
            Event::Fate { agent } => {
                self.decide_fate(agent);
                self.plan_fate(agent);
            }
            Event::ServerPause(length) => {
                if self.away.is_none() {
                    self.away = Some((self.now, self.now + length, Vec::new()));
                }
            }
            Event::Flood { first, count } => {
                for number in first..first + count {
                    let source = ([10, 9, 9, u8::try_from(number % 3).unwrap()], 1).into();
                    let sender = Sender::udp(source, 1_000_000 + number);
                    let frame = Frame::new(Status::Ok, sender.pid, 1, 1, 0);
                    let beat = ReceivedBeat { received_at: self.now, sender, frame };
                    self.arrive(Event::Beat { beat, handle: 1 });
                }
            }
            Event::Call => {
                if self.away.is_none() {
                    self.tracker.handle_timeout(self.now);
                    self.tracker.handle_timeout(self.now);
                    self.settle();
                }
            }
            Event::Beat { .. } | Event::Control { .. } | Event::Death { .. } | Event::QueueFull => {
                self.arrive(event);
            }
        }
    }

    /// The pause ends: the tracker handles what has arrived, and before or after that the observer gap. Then
    /// it handles the time.
    fn go_on(&mut self) {
        let Some((from, to, waiting)) = self.away.take() else { return };
        self.reference.blind(from, to);
        let notes_it_first = self.chance.happens(0.5);
        if notes_it_first {
            self.tracker.handle_observer_gap(from, to);
        }
        for event in waiting {
            self.arrive(event);
        }
        if !notes_it_first {
            self.tracker.handle_observer_gap(from, to);
        }
        self.tracker.handle_timeout(to);
        self.settle();
    }
}

/// Half of the worlds have adaptive timeouts.
fn arrival_policy(chance: &mut Chance) -> ArrivalPolicy {
    let bounds = Bounds {
        mistake_every: chance.one_of(&[
            None,
            Some(Duration::from_secs(60)),
            Some(Duration::from_secs(3_600)),
        ]),
        detect_within: Some(chance.millis(1_000, 20_000)),
        corrected_within: None,
    };
    let phi = Kind::Phi(Phi { threshold: 1.0 + 9.0 * chance.unit(), ..Phi::PUBLISHED });
    let shortest =
        chance.one_of(&[Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3)]);
    let longest = chance.one_of(&[Duration::from_secs(3), Duration::from_secs(60)]);
    let kind = chance.one_of(&[Kind::Fixed, Kind::Fixed, phi, Kind::Chen(bounds)]);
    ArrivalPolicy { kind, shortest, longest }
}
