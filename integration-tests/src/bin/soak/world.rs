//! What is done to agents, and what the server has to say about it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use varta_integration_tests::LIMIT;
use varta_integration_tests::sys::{self, Signal};

use crate::agent::{INTERVAL, Way};
use crate::chance::Chance;
use crate::events::Event;
use crate::nursery::Nursery;
use crate::slots::{Bad, Order, Sent, Slot, Slots};

/// The server's `--stall-after`.
pub(crate) const STALL_AFTER: Duration = Duration::from_secs(5);
/// How long a pause may be that must not be noticed.
const SHORT: Duration = Duration::from_millis(500);
/// The longest time from the end of an agent to the next with its name.
const LONGEST_ABSENCE: Duration = Duration::from_secs(6);
/// From the start of an agent to that of the next at the beginning: who starts at once with very many others finds
/// the socket's queue full, and is introduced late.
const APART: Duration = Duration::from_millis(10);
/// The events of an agent that are shown with a fault.
const HISTORY: usize = 8;
/// The name of an agent that is not introduced yet.
const COMMAND: &str = "it-soak";
/// Faults that are kept in words; more are counted.
const MAX_FAULTS: usize = 50;

/// What can happen to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Kill,
    Terminate,
    Abort,
    Exit,
    ExitWell,
    Goodbye,
    Stop,
    StopBriefly,
    Hang,
    Critical,
    Misbehave,
}

/// The fates of one that lives in a world that goes on.
const FATES: [Fate; 11] = [
    Fate::Kill,
    Fate::Terminate,
    Fate::Abort,
    Fate::Exit,
    Fate::ExitWell,
    Fate::Goodbye,
    Fate::Stop,
    Fate::StopBriefly,
    Fate::Hang,
    Fate::Critical,
    Fate::Misbehave,
];

/// A change of verdict that has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    to: &'static str,
    causes: &'static [&'static str],
}

const fn wanted(to: &'static str, causes: &'static [&'static str]) -> Wanted {
    Wanted { to, causes }
}

const FIRST: Wanted = wanted("up", &["first_beat", "restarted"]);
const RECOVERED: Wanted = wanted("up", &["recovered"]);
const REPORTED: Wanted = wanted("up", &["reported"]);

impl Fate {
    /// What the server has to say of it first. Of an agent of which it sees beats only, it knows its silence only.
    /// A look at a process may come too late on a busy machine, and then nothing explains a silence.
    fn wanted(self, is_local: bool) -> Option<Wanted> {
        Some(match self {
            // Its exit is well where the kernel has refused the goodbye.
            Fate::Goodbye if is_local => wanted("gone", &["goodbye", "exited"]),
            Fate::Goodbye => wanted("gone", &["goodbye"]),
            Fate::Critical => REPORTED,
            Fate::StopBriefly | Fate::Misbehave => return None,
            _ if !is_local => wanted("stalled", &["unreachable", "lossy"]),
            Fate::Kill | Fate::Abort => wanted("down", &["killed"]),
            Fate::Exit => wanted("down", &["exited"]),
            Fate::Terminate => wanted("gone", &["killed"]),
            Fate::ExitWell => wanted("gone", &["exited"]),
            Fate::Stop => wanted("stalled", &["stopped", "silent"]),
            Fate::Hang => wanted("stalled", &["idle", "busy", "silent"]),
        })
    }

    fn ends_it(self) -> bool {
        !matches!(self, Fate::Stop | Fate::StopBriefly | Fate::Hang | Fate::Critical | Fate::Misbehave)
    }

    /// Whether the agent is silent by it for as long as it lasts.
    fn silences_it(self, is_local: bool) -> bool {
        matches!(self, Fate::Stop | Fate::Hang) || !is_local && self.ends_it()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is let begin when its time has come.
    Absent(Instant),
    /// This has to be said of it since then; what follows it.
    Awaiting(Wanted, Instant, Next),
    /// Nothing is to be said of it.
    Well,
    /// It is stopped until then, and nothing is to be said of it.
    Stopped(Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It is well.
    Well,
    /// It goes on after this fate, and that has to be said.
    Revive(Fate),
    /// Its process has ended.
    Reap,
}

/// An agent, through all its processes.
#[derive(Debug)]
struct Agent {
    slot: Slot,
    name: String,
    way: Way,
    /// Its process.
    pid: u32,
    phase: Phase,
    /// It was called silent, and nothing was done to it: whether that was right shows when it beats again.
    accused: Option<String>,
    /// The last events about it, in short.
    history: VecDeque<String>,
}

/// All agents.
#[derive(Debug)]
pub(crate) struct World {
    agents: Vec<Agent>,
    by_name: HashMap<String, usize>,
    nursery: Nursery,
    chance: Chance,
    /// How many may be silent at a time: many at once are another matter.
    may_be_silent: usize,
    pub(crate) faults: Faults,
    pub(crate) done: BTreeMap<Fate, u64>,
    pub(crate) processes: u64,
    /// Silences that were true, though nobody had wanted them: the machine did not let an agent run.
    pub(crate) starved: u64,
    /// Verdicts `unknown`, of which each was followed by another.
    pub(crate) unknown: u64,
    pub(crate) slowest: Duration,
    /// Agents whose first beat was read before they were introduced; and of them those that took the place of another
    /// then, which is an event and no transition that is counted.
    pub(crate) late: u64,
    pub(crate) uncounted: u64,
    /// Nothing more begins.
    is_ending: bool,
}

impl World {
    pub(crate) fn new(slots: Slots, nursery: Nursery, seed: u64, ways: &[Way]) -> Self {
        let now = Instant::now();
        let agents: Vec<_> = (0..slots.count())
            .map(|index| Agent {
                slot: slots.get(index),
                name: format!("soak-{index}"),
                // Of ten, one beats over the network and one through a page.
                way: ways[match index % 10 {
                    0 => 2,
                    1 => 1,
                    _ => 0,
                }]
                .clone(),
                pid: 0,
                phase: Phase::Absent(now + APART * u32::try_from(index).unwrap_or(u32::MAX)),
                accused: None,
                history: VecDeque::new(),
            })
            .collect();
        World {
            by_name: agents.iter().enumerate().map(|(index, agent)| (agent.name.clone(), index)).collect(),
            may_be_silent: (agents.len() / 50).max(4),
            agents,
            nursery,
            chance: Chance::new(seed),
            faults: Faults::default(),
            done: BTreeMap::new(),
            processes: 0,
            starved: 0,
            unknown: 0,
            slowest: Duration::ZERO,
            late: 0,
            uncounted: 0,
            is_ending: false,
        }
    }

    /// Takes note of what the server says.
    pub(crate) fn heed(&mut self, events: Vec<Event>) -> io::Result<()> {
        for event in events {
            let mut index = self.by_name.get(&event.agent).copied();
            if event.agent == COMMAND {
                index = self.agents.iter().position(|agent| agent.pid == event.pid);
                self.late += u64::from(event.cause == "first_beat");
            }
            let Some(index) = index else {
                self.faults.add(|| format!("nobody has this name: {}", event.line));
                continue;
            };
            let history = &mut self.agents[index].history;
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(event.brief());
            self.heed_one(index, &event)?;
        }
        Ok(())
    }

    fn heed_one(&mut self, index: usize, event: &Event) -> io::Result<()> {
        let agent = &mut self.agents[index];
        if event.pid != agent.pid {
            self.faults.add(|| format!("its process is {}: {}", agent.pid, event.line));
            return Ok(());
        }
        if event.is_late_introduction() {
            self.uncounted += 1;
            return Ok(());
        }
        if event.to == "unknown" {
            // The server says that it cannot know. It is held to what it says next.
            self.unknown += 1;
            return Ok(());
        }
        if let Phase::Awaiting(wanted, since, next) = agent.phase
            && event.to == wanted.to
            && wanted.causes.contains(&event.cause.as_str())
        {
            self.slowest = self.slowest.max(since.elapsed());
            return self.go_on(index, next);
        }
        match event.to.as_str() {
            "stalled" if agent.accused.is_none() => agent.accused = Some(event.line.clone()),
            "up" if event.cause == "recovered" && agent.accused.is_some() => {
                let gap = agent.slot.longest_gap();
                let accusation = agent.accused.take().unwrap_or_default();
                if gap + INTERVAL >= STALL_AFTER {
                    self.starved += 1;
                } else {
                    self.faults.add(|| format!("its longest silence was {gap:?}: {accusation}"));
                }
                agent.slot.forgive();
            }
            // After `unknown`, the end of a doubt.
            "up" if event.cause == "recovered" => {}
            _ => self.faults.add(|| format!("it is {:?}: {}", agent.phase, event.line)),
        }
        Ok(())
    }

    fn go_on(&mut self, index: usize, next: Next) -> io::Result<()> {
        let now = Instant::now();
        let agent = &mut self.agents[index];
        agent.phase = match next {
            Next::Well => {
                agent.slot.forgive();
                Phase::Well
            }
            Next::Revive(fate) => {
                agent.slot.order(Order::Beat);
                if fate == Fate::Stop {
                    sys::send_signal(agent.pid, Signal::Continue)?;
                }
                let wanted = if fate == Fate::Critical { REPORTED } else { RECOVERED };
                Phase::Awaiting(wanted, now, Next::Well)
            }
            Next::Reap => {
                self.nursery.reap(agent.pid)?;
                Phase::Absent(now + self.chance.time(LONGEST_ABSENCE))
            }
        };
        Ok(())
    }

    /// Does what is due, and up to `actions` things to agents that are well.
    pub(crate) fn turn(&mut self, actions: usize) -> io::Result<()> {
        let now = Instant::now();
        for index in 0..self.agents.len() {
            let agent = &mut self.agents[index];
            match agent.phase {
                Phase::Absent(until) if until <= now && !self.is_ending => self.start(index)?,
                Phase::Stopped(until) if until <= now => {
                    sys::send_signal(agent.pid, Signal::Continue)?;
                    agent.phase = Phase::Well;
                }
                Phase::Awaiting(wanted, since, next) if now - since > LIMIT => {
                    let said = format!(
                        "{} [{}]: nobody has said {wanted:?}, after {LIMIT:?}; it was {:?}",
                        agent.name, agent.pid, agent.history
                    );
                    self.faults.add(|| said);
                    self.go_on(index, next)?;
                }
                _ => {}
            }
        }
        for _ in 0..actions {
            let index = self.chance.below(self.agents.len());
            let fate = self.chance.one_of(&FATES);
            if matches!(self.agents[index].phase, Phase::Well) && self.agents[index].accused.is_none() {
                self.befall(index, fate)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize) -> io::Result<()> {
        let agent = &mut self.agents[index];
        agent.slot.prepare();
        agent.pid = self.nursery.start(index, &agent.name, &agent.way)?;
        agent.phase = Phase::Awaiting(FIRST, Instant::now(), Next::Well);
        agent.accused = None;
        agent.slot.release(agent.pid);
        self.processes += 1;
        Ok(())
    }

    fn befall(&mut self, index: usize, fate: Fate) -> io::Result<()> {
        let is_local = self.agents[index].way.is_local();
        if fate.silences_it(is_local) && !self.is_ending && self.silent() >= self.may_be_silent {
            return Ok(());
        }
        let now = Instant::now();
        let agent = &mut self.agents[index];
        let signal = |signal| sys::send_signal(agent.pid, signal);
        match fate {
            Fate::Kill => signal(Signal::Kill)?,
            Fate::Terminate => signal(Signal::Terminate)?,
            Fate::Stop | Fate::StopBriefly => signal(Signal::Stop)?,
            Fate::Abort => agent.slot.order(Order::Abort),
            Fate::Exit => agent.slot.order(Order::Exit(3)),
            Fate::ExitWell => agent.slot.order(Order::Exit(0)),
            Fate::Goodbye => agent.slot.order(Order::Goodbye),
            Fate::Hang => agent.slot.order(Order::Hang),
            Fate::Critical => agent.slot.order(Order::Critical),
            Fate::Misbehave => agent.slot.order(Order::Misbehave),
        }
        let next = if fate.ends_it() { Next::Reap } else { Next::Revive(fate) };
        agent.phase = match fate.wanted(is_local) {
            Some(wanted) => Phase::Awaiting(wanted, now, next),
            None if fate == Fate::StopBriefly => Phase::Stopped(now + SHORT),
            None => Phase::Well,
        };
        *self.done.entry(fate).or_default() += 1;
        Ok(())
    }

    /// How many are silent, or about to be.
    fn silent(&self) -> usize {
        let is_silent =
            |agent: &&Agent| matches!(agent.phase, Phase::Awaiting(Wanted { to: "stalled", .. }, ..));
        self.agents.iter().filter(is_silent).count()
    }

    pub(crate) fn count(&self) -> usize {
        self.agents.len()
    }

    /// How many are as they should be, and nothing is awaited of them.
    pub(crate) fn settled(&self) -> usize {
        let is_settled =
            |agent: &&Agent| matches!(agent.phase, Phase::Well | Phase::Absent(_)) && agent.accused.is_none();
        self.agents.iter().filter(is_settled).count()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled() == self.agents.len()
    }

    /// Begins nothing more.
    pub(crate) fn calm_down(&mut self) {
        self.is_ending = true;
    }

    /// Has all say goodbye that are well.
    pub(crate) fn dismiss_all(&mut self) -> io::Result<()> {
        for index in 0..self.agents.len() {
            if self.agents[index].phase == Phase::Well {
                self.befall(index, Fate::Goodbye)?;
            }
        }
        Ok(())
    }

    /// Beats of agents with such a way.
    pub(crate) fn beats(&self, is_of: impl Fn(&Way) -> bool) -> Sent {
        let mut sent = Sent::default();
        self.agents.iter().filter(|agent| is_of(&agent.way)).for_each(|agent| sent += agent.slot.beats());
        sent
    }

    /// Datagrams of this kind. All go to the Unix socket.
    pub(crate) fn bad(&self, bad: Bad) -> Sent {
        let mut sent = Sent::default();
        self.agents.iter().for_each(|agent| sent += agent.slot.bad(bad));
        sent
    }
}

/// What was not as it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) kept: Vec<String>,
    pub(crate) count: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: impl FnOnce() -> String) {
        self.count += 1;
        if self.kept.len() < MAX_FAULTS {
            self.kept.push(fault());
        }
    }
}
