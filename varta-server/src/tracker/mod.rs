//! The liveness tracker: beats and time go in, changes of verdict come out.
//!
//! It is pure. It is handed the time and asks to be woken; it names no socket, no task, no clock and no file, so that
//! every rule that keeps a verdict true can be tested by writing down what happened when. The one question it asks,
//! who a local process is, it puts to a [`Processes`] that its caller brings.
//!
//! A beat writes one cache line and nothing else. Deadlines are looked at when the wheel brings an agent up, not when
//! a beat moves them.

mod agent;
mod blindness;
mod names;
mod policy;
mod rate;
mod session;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod transition;
mod twins;
mod verdict;
mod wheel;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use self::agent::{AgentKey, Rest, Slot};
use self::blindness::Blindness;
use self::names::Names;
pub use self::policy::Policy;
use self::rate::{RateLimit, Usage};
use self::session::Place;
use self::source::{SourceId, Sources};
use self::table::{MOST_AGENTS, Table};
pub use self::transition::{AgentId, LastWord, Transition, Twin};
use self::twins::Trails;
use self::verdict::Event;
pub use self::verdict::{Cause, Verdict};
use self::wheel::Wheel;
use crate::beat::{Origin, ReceivedBeat, Sender};
use crate::outcome::{Outcome, Tally};
use crate::time::MonoTime;

/// How many agents one call of [`Tracker::handle_timeout`] looks at, so that a million expiries do not stop ingest.
const LOOKS_PER_TURN: usize = 512;
/// The name of a process of which the kernel tells none.
const NAMELESS: &str = "unknown";

/// Who a process is, beyond its pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// When it started, in the kernel's own ticks since boot. Together with the pid it names one process life.
    pub start_time: NonZeroU64,
    /// Its command name.
    pub name: String,
}

/// Answers who the process with a pid is, for agents of this host.
pub trait Processes {
    /// The process that has `pid` now; `None` when there is none or it may not be seen.
    ///
    /// Asked on an agent's first beat, when a frame fits none of its sessions and when it beats after a silence: never
    /// for an ordinary beat.
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity>;
}

/// How much has happened that is no transition, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sessions whose nonce went round.
    pub nonce_wraps: u64,
    /// Silent agents that were forgotten.
    pub forgotten: u64,
    /// Beats whose stamp was older than that of a beat handled before, and was taken as equal.
    pub clamped_stamps: u64,
}

/// One agent as a scrape sees it.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// Where it beats from.
    pub origin: Origin,
    /// The process id that it goes by there.
    pub pid: u32,
    /// Which of the agents with this origin and pid it is.
    pub twin: Twin,
    /// What is concluded about it.
    pub verdict: Verdict,
    /// The last thing that it said.
    pub last: LastWord,
    /// When it last beat; a beat refused only for its rate counts.
    pub last_beat: MonoTime,
    /// Beats that it sent, by its nonces, and that did not arrive.
    pub lost: u64,
    /// How often it was called stalled.
    pub stalls: u32,
    /// How long it may be silent.
    pub stall_after: Duration,
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
    trails: Trails,
    names: Names,
    wheel: Wheel,
    /// Filled by each `handle_*` and to be drained after it, which bounds it by that call's work.
    transitions: VecDeque<Transition>,
    population: [usize; Verdict::NAMES.len()],
    blindness: Blindness,
    statistics: Statistics,
}

impl Tracker {
    /// Makes a tracker that knows nobody.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Tracker {
            agent_rate: RateLimit::per_second(policy.max_beat_rate),
            total_rate: RateLimit::per_second(policy.max_total_rate),
            policy,
            total_usage: Usage::default(),
            agents: Table::default(),
            sources: Sources::default(),
            trails: Trails::default(),
            names: Names::default(),
            wheel: Wheel::new(),
            transitions: VecDeque::new(),
            population: [0; Verdict::NAMES.len()],
            blindness: Blindness::default(),
            statistics: Statistics::default(),
        }
    }

    /// Takes beats in the order in which they arrived, and says what became of them.
    ///
    /// A refused beat changes no verdict, and moves no deadline unless it was refused only for its rate.
    pub fn handle_batch(&mut self, beats: &[ReceivedBeat], processes: &mut impl Processes) -> Tally {
        let mut tally = Tally::default();
        for beat in beats {
            tally.count(self.handle_beat(beat, processes));
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

    /// Concludes what follows from the time being `now`. Early and repeated calls change nothing.
    ///
    /// One call does a bounded amount of work; if there is more, [`Tracker::poll_timeout`] names a moment that has
    /// passed.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        for _ in 0..LOOKS_PER_TURN {
            let Some(number) = self.wheel.pop(now) else { return };
            self.look_at(number, now);
        }
    }

    /// The moment at which [`Tracker::handle_timeout`] is to be called next; `None` when there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        self.wheel.next_due()
    }

    /// The next change of verdict, oldest first. To be called until it gives `None` after each `handle_*`.
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.transitions.pop_front()
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

    /// How many agents have each verdict, by [`Verdict::index`].
    #[must_use]
    pub const fn population(&self) -> [usize; Verdict::NAMES.len()] {
        self.population
    }

    /// What has happened that is no transition.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// One more than the highest slot number there has been: the end of the range for [`Tracker::agents`].
    #[must_use]
    pub fn slots(&self) -> usize {
        self.agents.slots()
    }

    /// The agents in a range of slot numbers. What is beyond [`Tracker::slots`] is empty.
    pub fn agents(&self, range: Range<usize>) -> impl Iterator<Item = AgentView<'_>> {
        self.agents.range(range).filter_map(|(slot, rest)| {
            Some(AgentView {
                name: &rest.name,
                origin: self.sources.origin(slot.key.source),
                pid: slot.key.pid,
                twin: rest.twin,
                verdict: slot.verdict?,
                last: slot.last_word(),
                last_beat: slot.last_beat,
                lost: rest.lost,
                stalls: rest.stalls,
                stall_after: self.policy.stall_after,
            })
        })
    }

    fn handle_beat(&mut self, beat: &ReceivedBeat, processes: &mut impl Processes) -> Outcome {
        let Sender { origin, pid, lane } = beat.sender;
        let Some(source) = self.sources.find(origin) else {
            return self.handle_unknown(beat, Twin::FIRST, processes);
        };
        let key = AgentKey { source, pid, lane };
        match self.agents.find(key) {
            Some(number) => self.handle_known(number, beat, processes),
            None => self.handle_new_lane(key, beat, processes),
        }
    }

    fn handle_unknown(&mut self, beat: &ReceivedBeat, twin: Twin, processes: &mut impl Processes) -> Outcome {
        let Sender { origin, pid, lane } = beat.sender;
        if let Err(refused) = self.room_for(origin) {
            return refused;
        }
        if !beat.frame.is_terminal() && !self.total_rate.try_take(&mut self.total_usage, beat.received_at) {
            return Outcome::RateLimitedGlobal;
        }
        let (name, start_time) = self.identify(origin, pid, processes);
        let key = AgentKey { source: SourceId::LOCAL, pid, lane };
        let slot = Slot::first_heard(key, &beat.frame, beat.received_at, self.blindness.millis());
        let rest = Rest { name, start_time, lost: 0, stalls: 0, twin, others: None };
        let number = self.add(origin, slot, rest);
        self.announce(number, None, Cause::FirstBeat, beat.received_at, Duration::ZERO, None);
        Outcome::Accepted
    }

    /// Whether there is room for one more agent from `origin`; else how its beat is refused.
    fn room_for(&self, origin: Origin) -> Result<(), Outcome> {
        if self.len() >= self.policy.max_agents.min(MOST_AGENTS) {
            return Err(Outcome::Capacity);
        }
        let most = self.policy.max_agents_per_source;
        match origin {
            Origin::Udp(_) if most > 0 && self.sources.agents_of(origin) >= most => Err(Outcome::SourceLimit),
            Origin::Local | Origin::Udp(_) | Origin::SecureUdp(_) => Ok(()),
        }
    }

    /// Adds an agent, from then on watched, and gives its number. There is room for it.
    fn add(&mut self, origin: Origin, mut slot: Slot, rest: Rest) -> u32 {
        slot.key.source = self.sources.enter(origin);
        if let Some(verdict) = slot.verdict {
            self.population[verdict.index()] += 1;
        }
        let number = self.agents.insert(slot, rest);
        self.wheel.arm(number, self.deadline(number));
        number
    }

    #[inline]
    fn handle_known(&mut self, number: u32, beat: &ReceivedBeat, processes: &mut impl Processes) -> Outcome {
        let frame = &beat.frame;
        let slot = self.agents.slot_mut(number);
        let at = beat.received_at.max(slot.last_beat);
        if at != beat.received_at {
            self.statistics.clamped_stamps += 1;
        }

        // What is news is never refused for its rate.
        let is_news =
            frame.status != slot.status || frame.is_terminal() || slot.verdict == Some(Verdict::Stalled);
        if !is_news && let Some(limited) = self.limit(number, at) {
            self.agents.slot_mut(number).note_limited(frame, at, self.blindness.millis());
            return limited;
        }

        // A terminal frame comes from beside the sessions: it has no number in any of them.
        if !frame.is_terminal() {
            let (slot, rest) = self.agents.both_mut(number);
            let was_stalled = slot.verdict == Some(Verdict::Stalled);
            let place = slot.place(rest, frame, at);
            let may_be_another = match place {
                Place::Next { lost, wrapped } => {
                    rest.lost = rest.lost.saturating_add(lost);
                    self.statistics.nonce_wraps += u64::from(wrapped);
                    was_stalled
                }
                Place::Opens | Place::OutOfOrder => true,
                Place::Duplicate => return Outcome::Duplicate,
            };
            // To ask who the process is costs more than the frame. What was let through for being news has yet to pay.
            let may_ask = may_be_another && (!is_news || self.limit(number, at).is_none());
            if may_ask && self.is_new_incarnation(number, processes) {
                return self.restart(number, beat, at);
            }
            if place == Place::OutOfOrder {
                return Outcome::OutOfOrder;
            }
        }
        self.accept(number, beat, at);
        Outcome::Accepted
    }

    /// Counts a beat against the limits; gives the one that is exceeded.
    #[inline]
    fn limit(&mut self, number: u32, at: MonoTime) -> Option<Outcome> {
        if !self.agent_rate.try_take(&mut self.agents.slot_mut(number).usage, at) {
            Some(Outcome::RateLimitedAgent)
        } else if !self.total_rate.try_take(&mut self.total_usage, at) {
            Some(Outcome::RateLimitedGlobal)
        } else {
            None
        }
    }

    #[inline]
    fn accept(&mut self, number: u32, beat: &ReceivedBeat, at: MonoTime) {
        let slot = self.agents.slot_mut(number);
        let silence = at.since(slot.last_beat);
        let panicked = beat.frame.is_terminal() && !slot.terminal;
        slot.accept(&beat.frame, at, self.blindness.millis());
        let Some(before) = slot.verdict else { return };
        let after = before.next(Event::Beat(beat.frame.status));
        if after == before && !panicked {
            return;
        }
        slot.verdict = Some(after);
        self.recount(before, after);
        let cause = match before {
            _ if panicked => Cause::Panicked,
            Verdict::Stalled => Cause::Recovered,
            Verdict::Up(_) => Cause::Reported,
        };
        if before == Verdict::Stalled {
            self.wheel.arm(number, self.deadline(number));
        }
        self.announce(number, Some(before), cause, at, silence, None);
    }

    /// The process that beat under this pid is gone and another has taken the pid: nothing of the old one is kept but
    /// how often the series stalled.
    fn restart(&mut self, number: u32, beat: &ReceivedBeat, at: MonoTime) -> Outcome {
        let slot = self.agents.slot_mut(number);
        let silence = at.since(slot.last_beat);
        let before = slot.verdict;
        let Slot { usage, key, .. } = *slot;
        *slot = Slot { usage, ..Slot::first_heard(key, &beat.frame, at, self.blindness.millis()) };
        let rest = self.agents.rest_mut(number);
        rest.lost = 0;
        rest.others = None;
        if let Some(before) = before {
            self.recount(before, Verdict::Up(beat.frame.status));
        }
        self.wheel.arm(number, self.deadline(number));
        self.announce(number, before, Cause::Restarted, at, silence, None);
        Outcome::Accepted
    }

    fn look_at(&mut self, number: u32, now: MonoTime) {
        let slot = self.agents.slot_mut(number);
        let silence = now.since(slot.last_beat);
        match slot.verdict {
            Some(before @ Verdict::Up(_)) => {
                let deadline = self.deadline(number);
                if deadline > now {
                    self.wheel.arm(number, deadline);
                    return;
                }
                let slot = self.agents.slot_mut(number);
                let after = before.next(Event::DeadlinePassed);
                slot.verdict = Some(after);
                let cause = match slot.key.source {
                    _ if slot.terminal => Cause::Panicked,
                    SourceId::LOCAL => Cause::Silent,
                    _ => Cause::Unreachable,
                };
                self.wheel.arm(number, slot.last_beat + self.policy.forget_after);
                self.agents.rest_mut(number).stalls += 1;
                self.recount(before, after);
                self.announce(number, Some(before), cause, now, silence, Some(now.since(deadline)));
            }
            Some(Verdict::Stalled) => {
                if silence >= self.policy.forget_after {
                    self.forget(number);
                } else {
                    self.wheel.arm(number, slot.last_beat + self.policy.forget_after);
                }
            }
            None => {}
        }
    }

    fn forget(&mut self, number: u32) {
        let slot = self.agents.slot_mut(number);
        let source = slot.key.source;
        let Some(verdict) = slot.verdict.take() else { return };
        self.agents.remove(number);
        self.sources.leave(source);
        self.trails.forget(number);
        self.population[verdict.index()] -= 1;
        self.statistics.forgotten += 1;
    }

    /// Whether the pid of a local agent belongs to another process than before. Takes over who it is if so, and its
    /// name in any case: `exec` changes that.
    fn is_new_incarnation(&mut self, number: u32, processes: &mut impl Processes) -> bool {
        let AgentKey { source, pid, .. } = self.agents.slot(number).key;
        if source != SourceId::LOCAL {
            return false;
        }
        let (name, start_time) = self.identify(Origin::Local, pid, processes);
        if start_time.is_none() {
            return false;
        }
        let rest = self.agents.rest_mut(number);
        let before = std::mem::replace(&mut rest.start_time, start_time);
        rest.name = name;
        before.is_some() && before != start_time
    }

    fn identify(
        &mut self,
        origin: Origin,
        pid: u32,
        processes: &mut impl Processes,
    ) -> (Arc<str>, Option<NonZeroU64>) {
        let (name, start_time) = match origin.address() {
            Some(address) => (address.to_string(), None),
            None => match processes.identify(pid) {
                Some(ProcessIdentity { start_time, name }) => (name, Some(start_time)),
                None => (NAMELESS.to_owned(), None),
            },
        };
        (self.names.intern(&name, self.len()), start_time)
    }

    fn deadline(&self, number: u32) -> MonoTime {
        let Slot { last_beat, blind_before, .. } = *self.agents.slot(number);
        self.blindness.deadline(last_beat, blind_before, self.policy.stall_after)
    }

    fn recount(&mut self, before: Verdict, after: Verdict) {
        self.population[before.index()] -= 1;
        self.population[after.index()] += 1;
    }

    fn announce(
        &mut self,
        number: u32,
        from: Option<Verdict>,
        cause: Cause,
        at: MonoTime,
        silence: Duration,
        detection_latency: Option<Duration>,
    ) {
        let slot = self.agents.slot(number);
        let Rest { name, twin, .. } = self.agents.rest(number);
        let agent = AgentId {
            name: Arc::clone(name),
            origin: self.sources.origin(slot.key.source),
            pid: slot.key.pid,
            twin: *twin,
        };
        let to = slot.verdict.unwrap_or(Verdict::Up(Status::Ok));
        self.transitions.push_back(Transition {
            agent,
            from,
            to,
            cause,
            at,
            silence,
            last: slot.last_word(),
            detection_latency,
        });
    }
}
