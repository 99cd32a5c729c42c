//! Whole worlds on a virtual clock: agents that drift, stop, crash and take leave, links that lose, delay, double and
//! reorder, a server that is away for a while, and beside the tracker a reference that looks at everybody all the time.
//!
//! A number decides everything in a world. When a test here fails it names the world in which it failed; that one alone
//! runs again, and tells all that happens in it, with
//!
//! ```console
//! $ VARTA_WORLD=12345:3:40 cargo test -p varta-server --lib simulation::replay -- --nocapture
//! ```
//!
//! seed, agents and seconds as the failure names them. `VARTA_WORLDS=100000` has so many worlds looked at instead of the
//! usual few thousand.

mod chance;
mod detectors;
mod faults;
mod link;
mod measure;
mod reference;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::str::FromStr;

use proptest::prelude::*;

use self::chance::Chance;
use self::reference::{Reference, STATUSES};
use self::worker::{State, Worker};
use super::*;
use crate::beat::{Origin, ReceivedControl, Said};

/// Worlds that are looked at unless somebody asks for another number.
const WORLDS: u32 = 2_000;

/// What decides a world.
#[derive(Clone, Copy)]
struct Scenario {
    seed: u64,
    agents: u16,
    seconds: u64,
}

/// As proptest names it when something fails in it.
impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VARTA_WORLD={}:{}:{}", self.seed, self.agents, self.seconds)
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = text.split(':').map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok).ok_or("a world is seed:agents:seconds");
        let (seed, agents, seconds) = (next()?, next()?, next()?);
        Ok(Scenario { seed, agents: u16::try_from(agents).map_err(|_| "too many agents")?, seconds })
    }
}

fn scenario() -> impl Strategy<Value = Scenario> {
    (any::<u64>(), 1_u16..5, 5_u64..60).prop_map(|(seed, agents, seconds)| Scenario { seed, agents, seconds })
}

fn worlds(usual: u32) -> ProptestConfig {
    let asked = std::env::var("VARTA_WORLDS").ok().and_then(|text| text.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(asked.unwrap_or(usual)) }
}

#[derive(Clone, Debug)]
enum Event {
    /// An agent means to beat.
    Wake {
        agent: usize,
        handle: u32,
    },
    /// Something happens to an agent.
    Fate {
        agent: usize,
    },
    /// A beat arrives that `handle` sent.
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
        death: Death,
    },
    /// The server stands still for so long.
    ServerPause(Duration),
    /// Many beats of agents that nobody ever heard of.
    Flood {
        first: u32,
        count: u32,
    },
    /// The tracker is called without need.
    Call,
}

struct Simulation {
    scenario: Scenario,
    chance: Chance,
    tracker: Tracker,
    reference: Reference,
    processes: ProcessTable,
    workers: Vec<Worker>,
    events: BTreeMap<(MonoTime, u64), Event>,
    sequence: u64,
    now: MonoTime,
    /// What arrived while the server stood still, and when it goes on.
    away: Option<(MonoTime, MonoTime, Vec<Event>)>,
    answers_looks: bool,
    watched: HashSet<ProcessId>,
    changes: Vec<Transition>,
    stalled: usize,
    log: Log,
}

/// What becomes of the account of all that happens.
enum Log {
    None,
    Kept(String),
    Shown,
}

impl Simulation {
    fn new(scenario: Scenario, log: Log) -> Self {
        let mut chance = Chance::new(scenario.seed);
        let policy = Policy {
            stall_after: chance.millis(500, 4_000),
            forget_after: chance.one_of(&[Duration::from_secs(20), Duration::from_secs(86_400)]),
            max_beat_rate: 0,
            max_agents: 40,
            max_agents_per_source: 30,
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
        simulation
    }

    fn plan(&mut self, at: MonoTime, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn plan_fate(&mut self, agent: usize) {
        let after = self.workers[agent].chance.millis(500, 20_000);
        self.plan(self.now + after, Event::Fate { agent });
    }

    fn plan_for_the_server(&mut self) {
        let end = self.scenario.seconds * 1_000;
        for _ in 0..self.chance.below(4) {
            let at = MonoTime::START + self.chance.millis(0, end);
            // Blindness is kept in milliseconds.
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

    fn spawn(&mut self, worker: &Worker) {
        if let Some(start_time) = worker.start_time.and_then(NonZeroU64::new) {
            let name = "worker".to_owned();
            let identity = ProcessIdentity { start_time, name, is_group: false };
            self.processes.processes.insert(worker.sender.pid, identity);
        }
    }

    /// Lets everything happen up to the end of the scenario, and some time longer for verdicts to come.
    fn run(mut self) -> Self {
        let end = MonoTime::from_secs(self.scenario.seconds);
        loop {
            let next_event = self.events.first_key_value().map(|((at, _), _)| *at);
            let wake = if self.away.is_some() { None } else { self.tracker.poll_timeout() };
            let back = self.away.as_ref().map(|(_, to, _)| *to);
            let next = [next_event, wake, back].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { return self };
            self.now = self.now.max(at);
            // What has arrived is handed in before anything is concluded.
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
            Event::Beat { .. } | Event::Control { .. } | Event::Death { .. } => self.arrive(event),
        }
    }

    /// The server sees again: it takes what has arrived, and before or after that it notes that it was blind. Then it
    /// concludes.
    fn go_on(&mut self) {
        let Some((from, to, waiting)) = self.away.take() else { return };
        self.reference.blind(from, to);
        let notes_it_first = self.chance.happens(0.5);
        if notes_it_first {
            self.tracker.handle_blind(from, to);
        }
        for event in waiting {
            self.arrive(event);
        }
        if !notes_it_first {
            self.tracker.handle_blind(from, to);
        }
        self.tracker.handle_timeout(to);
        self.settle();
    }

    fn wake(&mut self, agent: usize, handle: u32) {
        let worker = &mut self.workers[agent];
        if worker.handle != handle {
            return;
        }
        let next = match worker.state {
            State::Away => return,
            State::Paused(until) if until > self.now => until,
            State::Paused(_) | State::Beating => {
                worker.state = State::Beating;
                let beat = worker.beat(self.now);
                let arrivals = worker.link.carry(&mut worker.chance, self.now);
                let next = worker.next_wake(self.now);
                for at in arrivals.into_iter().flatten() {
                    self.plan(at, Event::Beat { beat, handle });
                }
                next
            }
        };
        self.plan(next, Event::Wake { agent, handle });
    }

    fn decide_fate(&mut self, agent: usize) {
        let now = self.now;
        let worker = &mut self.workers[agent];
        if worker.state == State::Away && !worker.may_connect(now) {
            return;
        }
        if worker.state == State::Away {
            // A process in its place, or the same one with a new handle.
            if worker.chance.happens(0.7) && self.processes.processes.contains_key(&worker.sender.pid) {
                worker.connect(now);
            } else {
                worker.start_time = worker.start_time.map(|start_time| start_time + 1);
                worker.connect(now);
                let worker = worker.clone();
                self.spawn(&worker);
            }
            let handle = self.workers[agent].handle;
            self.plan(now, Event::Wake { agent, handle });
            return;
        }
        let fate = worker.chance.below(10);
        worker.undisturbed &= fate >= 9;
        match fate {
            0 | 1 => {
                let until = now + worker.chance.millis(0, 9_000);
                worker.state = State::Paused(until);
            }
            2 => {
                let signal = Death::Killed { signal: 9, core_dumped: false };
                let death =
                    worker.chance.one_of(&[signal, Death::Exited { code: 0 }, Death::Exited { code: 3 }]);
                self.crash(agent, death);
            }
            3 | 4 => {
                let control = worker.goodbye(now);
                let handle = worker.handle;
                worker.state = State::Away;
                let at = worker.link.carry_last(now);
                let arrives = !worker.chance.happens(worker.link.loss);
                let ends = worker.chance.happens(0.5);
                if arrives {
                    self.plan(at, Event::Control { control, handle });
                }
                if ends {
                    self.crash(agent, Death::Exited { code: 1 });
                }
            }
            5 if worker.may_connect(now) => {
                worker.connect(now);
                let handle = worker.handle;
                self.plan(now, Event::Wake { agent, handle });
            }
            6 => {
                let control = worker.hello(now);
                let (at, handle) = (worker.link.carry_last(now), worker.handle);
                self.plan(at, Event::Control { control, handle });
            }
            7 => {
                let (beat, handle) = (worker.last_word(now), worker.handle);
                for at in worker.link.carry(&mut worker.chance, now).into_iter().flatten() {
                    self.plan(at, Event::Beat { beat, handle });
                }
                self.crash(agent, Death::Exited { code: 101 });
            }
            _ => worker.status = worker.chance.one_of(&STATUSES),
        }
    }

    /// The process of an agent ends. Of a local one the tracker is mostly told, after all that it sent.
    fn crash(&mut self, agent: usize, death: Death) {
        let worker = &mut self.workers[agent];
        worker.state = State::Away;
        let pid = worker.sender.pid;
        let Some(start_time) = worker.start_time else { return };
        self.processes.processes.remove(&pid);
        if worker.chance.happens(0.8) {
            let at = worker.link.carry_last(self.now) + worker.chance.millis(0, 200);
            self.plan(at, Event::Death { pid, start_time, death });
        }
    }

    /// Hands in what comes from outside, or keeps it until the server looks.
    fn arrive(&mut self, event: Event) {
        if let Some((_, _, waiting)) = &mut self.away {
            waiting.push(event);
            return;
        }
        let now = self.now;
        match event {
            Event::Beat { mut beat, handle } => {
                beat.received_at = now;
                let tally = self.tracker.handle_batch(&[beat], &mut self.processes);
                let (row, _) = tally.rows().next().expect("one beat has one outcome");
                let outcome = outcome(row);
                let Frame { nonce, timestamp, status, .. } = beat.frame;
                let pid = beat.sender.pid;
                self.note(format_args!("{pid}/{handle} beat {nonce} of {timestamp}: {status}, {outcome:?}"));
                self.drain();
                let identity = self.processes.processes.get(&beat.sender.pid);
                let start_time = identity
                    .filter(|_| beat.sender.origin == Origin::Local)
                    .map(|identity| identity.start_time.get());
                self.reference.beat(&beat, handle, outcome, start_time, &self.changes);
            }
            Event::Control { mut control, handle } => {
                control.received_at = now;
                let outcome = self.tracker.handle_control(&control);
                let pid = control.sender.pid;
                self.note(format_args!("{pid}/{handle} {:?}: {outcome:?}", control.said));
                self.drain();
                match &control.said {
                    Said::Hello(introduction) => {
                        assert!(self.changes.is_empty(), "{:?}", self.changes);
                        self.reference.hello(control.sender, introduction, now);
                    }
                    Said::Goodbye { .. } => self.reference.goodbye(control.sender, handle, &self.changes),
                }
            }
            Event::Death { pid, start_time, death } => {
                let process = ProcessId { pid, start_time: NonZeroU64::new(start_time).unwrap() };
                let is_awaited = self.reference.waits_for_death(pid, start_time);
                assert!(
                    !is_awaited || self.watched.contains(&process),
                    "nobody asked to be told of {process:?}"
                );
                self.tracker.handle_death(process, death, now, now);
                self.note(format_args!("{process:?}: {death:?}"));
                self.drain();
                self.reference.death(pid, start_time, death, &self.changes);
            }
            Event::Wake { .. }
            | Event::Fate { .. }
            | Event::ServerPause(_)
            | Event::Flood { .. }
            | Event::Call => {}
        }
        self.settle();
    }

    /// Answers what the tracker asks, and checks what it says then.
    fn settle(&mut self) {
        loop {
            self.drain();
            self.accuse_nobody_undisturbed();
            self.reference.passed(self.now, &self.changes);
            let Some(request) = self.tracker.poll_request() else { break };
            match request {
                Request::Watch(process) => {
                    self.watched.insert(process);
                }
                Request::Unwatch(process) => {
                    self.watched.remove(&process);
                }
                Request::Look { process, depth: Depth::Close } if self.answers_looks => {
                    self.tracker.handle_evidence(process, None, self.now);
                }
                Request::Look { .. } | Request::Find(_) => {}
            }
        }
        self.reference.compare(self.now, self.tracker.agents(0..usize::MAX), self.tracker.population());
        let most = 40;
        assert!(self.tracker.len() <= most && self.tracker.slots() <= most);
        assert!(self.tracker.departed.len() <= 2 * most + 1);
        assert!(self.tracker.names.len() <= most);
    }

    fn drain(&mut self) {
        self.changes.clear();
        while let Some(change) = self.tracker.poll_transition() {
            self.stalled += usize::from(change.to == Verdict::Stalled);
            self.note(format_args!("    {change:?}"));
            self.changes.push(change);
        }
    }

    /// From the agents' own side: who beat in time all along is not accused, whatever the tracker made of its beats.
    fn accuse_nobody_undisturbed(&self) {
        for change in self.changes.iter().filter(|change| change.to == Verdict::Stalled) {
            let accused = self.workers.iter().find(|worker| worker.sender.pid == change.agent.pid);
            let Some(worker) = accused else { continue };
            let in_time = worker.longest_gap() < self.tracker.policy.stall_after;
            assert!(!(worker.undisturbed && in_time), "it beat all the time: {change:?}");
        }
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        match &mut self.log {
            Log::None => {}
            Log::Kept(log) => writeln!(log, "{} {what}", self.now).unwrap(),
            Log::Shown => println!("{} {what}", self.now),
        }
    }
}

fn outcome(row: usize) -> Outcome {
    let outcomes = [
        Outcome::Accepted,
        Outcome::Duplicate,
        Outcome::OutOfOrder,
        Outcome::RateLimitedAgent,
        Outcome::RateLimitedGlobal,
        Outcome::Capacity,
        Outcome::SourceLimit,
    ];
    outcomes.into_iter().find(|outcome| outcome.index() == row).expect("an outcome of the tracker")
}

/// Runs one world.
fn run(scenario: Scenario) -> Simulation {
    Simulation::new(scenario, Log::None).run()
}

proptest! {
    #![proptest_config(worlds(WORLDS))]

    #[test]
    fn the_tracker_agrees_with_the_reference_in_every_world(scenario in scenario()) {
        run(scenario);
    }
}

proptest! {
    #![proptest_config(worlds(100))]

    #[test]
    fn the_same_seed_gives_the_same_log_byte_for_byte(scenario in scenario()) {
        let log = || match Simulation::new(scenario, Log::Kept(String::new())).run().log {
            Log::Kept(log) => log,
            Log::None | Log::Shown => String::new(),
        };
        let first = log();
        prop_assert!(first == log());
    }
}

#[test]
fn much_happens_in_these_worlds() {
    let worlds = (0..100).map(|seed| run(Scenario { seed, agents: 3, seconds: 40 }));
    let stalled: usize = worlds.map(|simulation| simulation.stalled).sum();
    assert!(stalled > 200, "{stalled} verdicts are too few to learn anything from");
}

#[test]
fn replay() {
    if let Ok(scenario) = std::env::var("VARTA_WORLD") {
        Simulation::new(scenario.parse().unwrap(), Log::Shown).run();
    }
}
