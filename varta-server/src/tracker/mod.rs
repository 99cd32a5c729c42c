//! The liveness tracker: beats and time go in, changes of verdict come out.
//!
//! It is pure. It is handed the time and asks to be woken; it names no socket, no task, no clock and no file, so that
//! every rule that keeps a verdict true can be tested by writing down what happened when. The one question it asks,
//! who a local process is, it puts to a [`Processes`] that its caller brings.
//!
//! A beat writes one cache line and nothing else. Deadlines are looked at when the wheel brings an agent up, not when
//! a beat moves them.

mod agent;
mod alarms;
pub mod arrival;
mod beats;
mod blindness;
mod cause;
mod crowd;
mod expected;
mod incident;
mod index;
mod judgement;
mod learned;
mod looks;
mod mistakes;
mod names;
mod policy;
mod promises;
mod rate;
mod remembered;
mod request;
mod room;
mod session;
mod source;
mod standing;
mod table;
#[cfg(test)]
mod tests;
mod transition;
mod twins;
mod verdict;
mod view;
mod wheel;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use self::agent::Rest;
use self::blindness::Blindness;
pub use self::cause::Cause;
use self::crowd::Crowd;
use self::expected::Awaited;
pub use self::incident::Incident;
use self::incident::Incidents;
use self::index::NONE;
pub use self::judgement::ProcessId;
use self::learned::Learned;
use self::looks::Looks;
pub use self::names::NameSource;
use self::names::Names;
pub use self::policy::Policy;
use self::promises::Waiting;
use self::rate::{RateLimit, Usage};
pub use self::remembered::{Fate, Note, Remembered};
pub use self::request::{Depth, Request};
use self::source::Sources;
pub use self::standing::{Named, Standing};
use self::table::{TOGETHER, Table};
pub use self::transition::{AgentId, LastWord, Transition, Twin};
use self::twins::Trails;
pub use self::verdict::Verdict;
pub use self::view::{AgentView, Statistics};
use self::wheel::Wheel;
use crate::beat::{ReceivedBeat, Transport};
use crate::outcome::Tally;
use crate::process::Dossier;
use crate::time::{MonoTime, nanos};

/// How many agents one call of [`Tracker::handle_timeout`] looks at, so that a million expiries do not stop ingest.
const LOOKS_PER_TURN: usize = 512;
/// To so many moments of a stall-after, or twice as many, the looks at half of a silence are put together.
const LOOKS_IN_A_SILENCE: u64 = 16;
/// Beats that are so few are looked up one after the other.
const WORTH_A_GUESS: usize = 4;
/// The name of a process of which the kernel tells none.
const NAMELESS: &str = "unknown";

/// Who a process is, beyond its pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// When it started, in the kernel's own ticks since boot. Together with the pid it names one process life.
    pub start_time: NonZeroU64,
    /// What it is called.
    pub name: String,
    /// Whether that is the name of its unit or container and not of its command, so that a process that takes its place has
    /// the same and a stranger has not.
    pub is_group: bool,
    /// Whether it is a unit that the service manager of this host knows by that name.
    pub is_unit: bool,
}

/// Answers who the process with a pid is, for agents of this host.
pub trait Processes {
    /// The process that has `pid` now; `None` when there is none or it may not be seen.
    ///
    /// Asked on an agent's first beat, when a frame fits none of its sessions and when it beats after a silence: never
    /// for an ordinary beat.
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity>;
}

/// Knows all agents, and says when a verdict about one changes.
#[derive(Debug)]
pub struct Tracker {
    policy: Policy,
    agent_rate: RateLimit,
    total_rate: RateLimit,
    total_usage: Usage,
    agents: Table,
    sources: Sources,
    /// By [`Transport::index`].
    trails: [Trails; Transport::ALL.len()],
    names: Names,
    learned: Learned,
    wheel: Wheel,
    /// Filled by each `handle_*` and to be drained after it, which bounds it by that call's work.
    transitions: VecDeque<Transition>,
    /// The same goes for these.
    requests: VecDeque<Request>,
    /// And for these.
    unread: VecDeque<u32>,
    /// And for these; `None` while nobody wants them.
    notes: Option<VecDeque<Note>>,
    /// Agents that were down or gone at some time, in that order; some have come back since. At most two for each slot.
    departed: VecDeque<u32>,
    waiting: Waiting,
    awaited: Awaited,
    /// The slots in which the rules in force have not been applied yet.
    unruled: Range<usize>,
    looks: Looks,
    population: [usize; Verdict::NAMES.len()],
    blindness: Blindness,
    /// By [`Transport::index`].
    crowds: [Crowd; Transport::ALL.len()],
    incidents: Incidents,
    /// When datagrams were last lost on the way, by [`Transport::index`].
    lost_at: [Option<MonoTime>; Transport::ALL.len()],
    statistics: Statistics,
}

impl Tracker {
    /// Makes a tracker that knows nobody.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let awaited = Awaited::new(&policy.expected);
        Tracker {
            agent_rate: RateLimit::per_second(policy.max_beat_rate),
            total_rate: RateLimit::per_second(policy.max_total_rate),
            looks: Looks::new(policy.looks_per_second),
            learned: Learned::new(policy.arrival),
            agents: Table::with_room_for(policy.max_agents),
            policy,
            total_usage: Usage::default(),
            sources: Sources::default(),
            trails: Default::default(),
            names: Names::default(),
            wheel: Wheel::new(),
            transitions: VecDeque::new(),
            requests: VecDeque::new(),
            unread: VecDeque::new(),
            notes: None,
            departed: VecDeque::new(),
            waiting: Waiting::default(),
            awaited,
            unruled: 0..0,
            population: [0; Verdict::NAMES.len()],
            blindness: Blindness::default(),
            crowds: Default::default(),
            incidents: Incidents::default(),
            lost_at: [None; Transport::ALL.len()],
            statistics: Statistics::default(),
        }
    }

    /// Takes beats in the order in which they arrived, and says what became of them.
    ///
    /// A refused beat changes no verdict, and moves no deadline unless it was refused only for its rate.
    pub fn handle_batch(&mut self, beats: &[ReceivedBeat], processes: &mut impl Processes) -> Tally {
        let mut tally = Tally::default();
        for some in beats.chunks(TOGETHER) {
            let numbers = if some.len() >= WORTH_A_GUESS {
                self.agents.guess(some.iter().map(|beat| self.key_of(beat.sender)))
            } else {
                [NONE; TOGETHER]
            };
            for (beat, number) in some.iter().zip(numbers) {
                tally.count(self.handle_beat(beat, number, processes));
            }
        }
        tally
    }

    /// Takes note that nothing could be seen between `from` and `to`, because the beats of that time may be lost.
    ///
    /// Whoever has not beaten since is given a whole stall-after from `to` on. When blindness comes again and again that
    /// is not repeated without end: a deadline moves by the blind time altogether, and by one stall-after more at the most.
    pub fn handle_blind(&mut self, from: MonoTime, to: MonoTime) {
        self.blindness.add(from, to);
    }

    /// Takes note that datagrams may have been lost on the way by `at`: the kernel threw some away, or a queue was full.
    ///
    /// Whoever is silent by then is given one stall-after more, and no more than one.
    pub fn handle_loss(&mut self, transport: Transport, at: MonoTime) {
        let lost_at = &mut self.lost_at[transport.index()];
        *lost_at = (*lost_at).max(Some(at));
    }

    /// Concludes what follows from the time being `now`. Early and repeated calls change nothing.
    ///
    /// One call does a bounded amount of work; if there is more, [`Tracker::poll_timeout`] names a moment that has
    /// passed.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        if !self.apply_new_rules() {
            return;
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some(name) = self.awaited.pop_missing(now) else { break };
            self.transitions.push_back(Transition::of_missing(name, now));
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some(number) = self.wheel.pop(now) else { return };
            self.look_at(number, now);
        }
    }

    /// The moment at which [`Tracker::handle_timeout`] is to be called next; `None` when there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        if !self.unruled.is_empty() {
            return Some(MonoTime::START);
        }
        [self.wheel.next_due(), self.awaited.next_due()].into_iter().flatten().min()
    }

    /// The next change of verdict, oldest first. To be called until it gives `None` after each `handle_*`.
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.transitions.pop_front()
    }

    /// What is wanted from outside next, oldest first. To be called until it gives `None` after each `handle_*`.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The process whose page of memory is to be read next, before its silence is held against it; see
    /// [`Tracker::handle_read`]. To be called until it gives `None` after each [`Tracker::handle_timeout`].
    pub fn poll_unread(&mut self) -> Option<u32> {
        self.unread.pop_front()
    }

    /// How many agents there are, silent ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether there are no agents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.len() == 0
    }

    /// How many agents have each verdict, by [`Verdict::index`]; of those that are expected all that were not heard, also
    /// those who have time yet.
    #[must_use]
    pub fn population(&self) -> [usize; Verdict::NAMES.len()] {
        let mut population = self.population;
        population[Verdict::EXPECTED] += self.awaited.unheard();
        population
    }

    /// Whether there is anybody who is to beat.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        [Verdict::UP, Verdict::EXPECTED].iter().any(|state| self.population[*state] > 0)
    }

    /// The names of agents that are expected, were not heard, and whose grace is over.
    pub fn missing(&self) -> impl Iterator<Item = &Arc<str>> {
        self.awaited.missing()
    }

    /// The names under which agents have taken the place of others that were down or gone, with how often.
    pub fn restarts(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.names.restarts()
    }

    /// What has happened that is no transition.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            looks_refused: self.looks.refused(),
            incidents: self.incidents.count(),
            ..self.statistics
        }
    }

    /// One more than the highest slot number there has been: the end of the range for [`Tracker::agents`].
    #[must_use]
    pub fn slots(&self) -> usize {
        self.agents.slots()
    }

    /// The agents in a range of slot numbers. What is beyond [`Tracker::slots`] is empty.
    pub fn agents(&self, range: Range<usize>) -> impl Iterator<Item = AgentView<'_>> {
        self.agents.range(range).filter_map(|(number, slot, rest)| {
            Some(AgentView {
                name: self.names.get(rest.name),
                origin: self.sources.origin(slot.key.source),
                pid: slot.key.pid,
                twin: rest.twin,
                verdict: slot.verdict?,
                last: slot.last_word(),
                last_beat: slot.last_beat,
                silent_before: rest.silent_before(),
                lost: u64::from(rest.lost),
                stalls: rest.stalls,
                mistakes: rest.mistakes(),
                stall_after: self.stall_after_of(number, rest),
            })
        })
    }

    /// How long an agent may be silent.
    fn stall_after(&self, number: u32) -> Duration {
        self.stall_after_of(number, self.agents.rest(number))
    }

    /// By a rule for its name, or what it asked for, or what was learned of it, or what holds for all.
    fn stall_after_of(&self, number: u32, rest: &Rest) -> Duration {
        let learned = || self.learned.stall_after(number);
        rest.promised().or_else(learned).unwrap_or(self.policy.stall_after)
    }

    fn deadline(&self, number: u32) -> MonoTime {
        let last_beat = self.agents.slot(number).last_beat;
        let deadline = self.blindness.deadline(last_beat, self.stall_after(number));
        let busy_until = self.agents.rest(number).extra.as_ref().map(|extra| extra.busy_until);
        busy_until.map_or(deadline, |busy_until| deadline.max(busy_until))
    }

    /// When an agent is to be looked at next that has just beaten: at half of its silence, or a little later, so that one
    /// waking up serves many agents and not each its own.
    fn first_look(&self, number: u32) -> MonoTime {
        let (deadline, stall_after) = (self.deadline(number), self.stall_after(number));
        let grain = (nanos(stall_after) / LOOKS_IN_A_SILENCE).max(1);
        // A power of two is what the wheel has slots for.
        let grain = 1 << grain.ilog2();
        let half = deadline.before(stall_after / 2).as_nanos().checked_next_multiple_of(grain);
        half.map_or(deadline, |half| MonoTime::from_nanos(half).min(deadline))
    }

    fn recount(&mut self, before: Verdict, after: Verdict) {
        self.population[before.index()] -= 1;
        self.population[after.index()] += 1;
    }

    fn announce(&mut self, number: u32, change: Change) {
        let Change { from, cause, at, silence, detection_latency, dossier, predecessor } = change;
        let slot = self.agents.slot(number);
        let to = slot.verdict.unwrap_or(Verdict::Up(Status::Ok));
        let has_fallen = matches!(to, Verdict::Stalled | Verdict::Down);
        let incident = has_fallen.then(|| self.incidents.note(slot.key.source, to, at)).flatten();
        self.transitions.push_back(Transition {
            agent: self.id(number),
            labels: self.labels(number),
            unit: self.unit(number),
            predecessor,
            process: self.incarnation(number),
            from,
            to,
            cause,
            at,
            silence,
            last: slot.last_word(),
            stall_after: self.stall_after(number),
            detection_latency,
            mistake: None,
            dossier,
            incident,
        });
        self.note(number);
    }
}

/// What there is to say of a change beside what the agent itself tells.
#[derive(Debug)]
struct Change {
    from: Option<Verdict>,
    cause: Cause,
    at: MonoTime,
    silence: Duration,
    detection_latency: Option<Duration>,
    dossier: Option<Arc<Dossier>>,
    /// Whose place it takes.
    predecessor: Option<AgentId>,
}

impl Change {
    /// One of which there is no more to say than that.
    fn new(from: Option<Verdict>, cause: Cause, at: MonoTime, silence: Duration) -> Self {
        Change { from, cause, at, silence, detection_latency: None, dossier: None, predecessor: None }
    }

    fn of_first_beat(at: MonoTime) -> Self {
        Change::new(None, Cause::FirstBeat, at, Duration::ZERO)
    }
}
