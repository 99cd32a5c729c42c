//! The reference: what the tracker may emit, by the plainest rules and at any cost. It checks all agents
//! after each step, stores every observer gap, and has neither wheel nor slots nor sessions.
//!
//! It checks what the tracker emits instead of predicting it. Where the rules leave a choice (a late frame of
//! an older handle, an adaptive timeout) it takes over the tracker's decision, and holds the tracker to that.

mod checks;

use std::time::Duration;

use varta_proto::Status;

use crate::base::time::MonoTime;
use crate::domain::beat::{Hello, Origin, ReceivedBeat, Sender};
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::ExitStatus;
use crate::domain::tracker::agents::view::AgentView;
use crate::domain::tracker::detection::arrival::ArrivalPolicy;
use crate::domain::tracker::policy::Policy;
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::Transition;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// Four ticks of the tracker.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// How long the tracker waits for an inspection without an answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);
/// How long the tracker's answer to the question of mass silence holds.
const ANSWER_HOLDS_FOR: Duration = Duration::from_millis(10);
/// How long an agent that is gone is kept.
const GONE_KEPT: Duration = Duration::from_secs(60);

/// Which verdict may follow which: the state machine once more, as pairs.
const TABLE: [(&str, &[&str]); 5] = [
    ("up", &["up", "stalled", "unknown", "gone", "down"]),
    ("stalled", &["up", "gone", "down"]),
    ("unknown", &["up", "stalled", "gone", "down"]),
    ("down", &["up"]),
    ("gone", &["up"]),
];

#[derive(Clone, Debug)]
struct Known {
    sender: Sender,
    verdict: Verdict,
    last_beat: MonoTime,
    asked: Option<Duration>,
    /// Three of the intervals that it announced.
    three: Option<Duration>,
    /// Its adaptive timeout.
    learned: Option<Duration>,
    busy_until: MonoTime,
    /// The handles that beat in this life of the process, with the newest nonce of each.
    handles: Vec<(u32, u64)>,
    /// The newest handle when an old frame was taken for one of another session, because an observer gap had
    /// delayed it: from then on other old frames may be taken for frames of that session.
    mistaken: Option<u32>,
    start_time: Option<u64>,
    is_dead: bool,
    terminal: bool,
    /// The handle that said goodbye.
    farewell: Option<u32>,
    /// Before this time no verdict was possible, whatever the deadline.
    not_before: MonoTime,
    /// Whether it has been in grace since its last beat, because of mass silence.
    doubted: bool,
    /// When it was last awaited, if it is not now.
    awaited_until: Option<MonoTime>,
}

#[derive(Debug)]
pub(super) struct Reference {
    policy: Policy,
    answers_looks: bool,
    agents: Vec<Known>,
    waiting: Vec<(Sender, Hello)>,
    blind: Vec<(MonoTime, MonoTime)>,
    /// The times at which the queue of the Unix socket was full.
    full: Vec<MonoTime>,
}

impl Reference {
    pub(super) fn new(policy: Policy, answers_looks: bool) -> Self {
        let (blind, full) = (Vec::new(), Vec::new());
        Reference { policy, answers_looks, agents: Vec::new(), waiting: Vec::new(), blind, full }
    }

    fn find(&self, origin: Origin, pid: u32) -> Option<usize> {
        self.agents.iter().position(|known| (known.sender.origin, known.sender.pid) == (origin, pid))
    }

    fn stall_after(&self, known: &Known) -> Duration {
        known.asked.or(known.learned).or(known.three).unwrap_or(self.policy.stall_after)
    }

    fn deadline(&self, known: &Known) -> MonoTime {
        let stall_after = self.stall_after(known);
        let plain = known.last_beat + stall_after;
        let since = self.blind.iter().filter(|(_, to)| *to > known.last_beat);
        let deadline = match since.clone().map(|(_, to)| *to).max() {
            Some(sight_since) => {
                let unseen: Duration = since.map(|(from, to)| to.since((*from).max(known.last_beat))).sum();
                (sight_since + stall_after).min(plain + unseen + stall_after)
            }
            None => plain,
        };
        deadline.max(known.busy_until)
    }

    /// Before this time an agent of this host is not called stalled, because the queue was full since its last
    /// beat.
    fn has_room_at(&self, known: &Known) -> Option<MonoTime> {
        let full_at = self.full.iter().copied().max().filter(|_| known.sender.origin == Origin::Local)?;
        (full_at > known.last_beat).then(|| full_at + self.stall_after(known))
    }

    /// The latest time at which a silent agent must have been called stalled, or given grace.
    fn latest_verdict(&self, known: &Known) -> MonoTime {
        let patience = if self.answers_looks { Duration::ZERO } else { PATIENCE + TICK };
        // An agent that an observer gap has made unknown gets its grace without another transition.
        let doubted =
            known.doubted || self.policy.mass_silence_min_agents > 0 && known.verdict == Verdict::Unknown;
        let chance = if doubted { self.stall_after(known) + patience + TICK } else { Duration::ZERO };
        let due = self.deadline(known).max(known.not_before);
        let waits = self.has_room_at(known).map_or(due, |has_room_at| has_room_at.max(due) + patience + TICK);
        waits + chance + patience + TICK
    }

    /// Whether so many agents on this one's transport are awaited that mass silence is possible, or were when
    /// the tracker last answered that question.
    fn may_be_in_a_crowd(&self, known: &Known, now: MonoTime) -> bool {
        let transport = known.sender.origin.transport();
        let counts = |other: &Known| {
            other.verdict.is_awaited()
                || other.awaited_until.is_some_and(|until| now.since(until) <= ANSWER_HOLDS_FOR)
        };
        let fellows =
            self.agents.iter().filter(|other| counts(other) && other.sender.origin.transport() == transport);
        self.policy.mass_silence_min_agents > 0 && fellows.count() >= self.policy.mass_silence_min_agents
    }

    /// The invariants of every transition, whatever caused it.
    fn check(&mut self, index: usize, change: &Transition) {
        let known = &mut self.agents[index];
        assert_eq!(change.from, Some(known.verdict), "a change begins where the last one ended: {change:?}");
        let (from, to) = (known.verdict.as_str(), change.to.as_str());
        let allowed = TABLE.iter().any(|(state, next)| *state == from && next.contains(&to));
        assert!(allowed, "not in the table: {change:?}");
        if known.verdict.is_awaited() && !change.to.is_awaited() {
            known.awaited_until = Some(change.at);
        }
        if change.to.is_alarm() {
            assert_eq!(known.farewell, None, "a goodbye is never followed by an alarm: {change:?}");
        }
        // A process that could not be identified at its first beat may have been identified later. The
        // reference does not prescribe when the tracker looks it up.
        if change.cause != Cause::Restarted {
            known.start_time = known.start_time.or(change.process.map(|process| process.start_time.get()));
        }
    }

    /// A beat from `handle` was handled; the process with its pid started at `start_time`.
    pub(super) fn beat(
        &mut self,
        beat: &ReceivedBeat,
        handle: u32,
        outcome: FrameOutcome,
        start_time: Option<u64>,
        changes: &[Transition],
    ) {
        let (sender, frame) = (beat.sender, &beat.frame);
        let up = Verdict::Up(frame.status);
        let Some(index) = self.find(sender.origin, sender.pid) else {
            self.first_beat(beat, handle, outcome, start_time, changes);
            return;
        };
        let known = &self.agents[index];
        let is_away = !matches!(known.verdict, Verdict::Up(_));
        let accepted = outcome == FrameOutcome::Accepted;
        if !frame.is_terminal() {
            let newest = known.handles.iter().map(|(handle, _)| *handle).max();
            // After an observer gap the delay of a frame that it held up is not known.
            let is_remote = sender.origin != Origin::Local;
            let was_blind = self.blind.iter().any(|(_, to)| *to > known.last_beat);
            let may_tell = !is_remote || !was_blind && (known.mistaken.is_none() || known.mistaken != newest);
            let of_this = known.handles.iter().find(|(known, _)| *known == handle);
            // A frame after one that was held up may seem to be of the handle before, or of the session for which
            // an old frame was taken, by its clock, until it has caught up with that.
            let was_held_up = self.blind.iter().any(|(_, to)| *to >= known.last_beat);
            let has_others = known.handles.len() > 1 || known.mistaken.is_some();
            let may_be_older = is_remote && has_others && was_held_up;
            if let Some((_, nonce)) = of_this.filter(|_| newest == Some(handle)) {
                if frame.nonce > *nonce && known.farewell.is_none() {
                    assert!(accepted || may_be_older, "what is new in a session is accepted: {beat:?}");
                } else if frame.nonce <= *nonce && may_tell && (is_remote || known.handles.len() == 1) {
                    assert!(!accepted, "what is old moves no deadline: {beat:?}");
                }
            }
            if newest > Some(handle) && is_remote && may_tell && frame.nonce > 1 {
                assert!(!accepted, "one handle has taken the place of the other: {beat:?}");
            }
        }
        if !accepted {
            assert!(changes.is_empty(), "a refused beat changes nothing: {changes:?}");
            return;
        }
        if accepted
            && known.sender != sender
            && let Some(introduction) = self.introduction(sender)
        {
            self.introduce(index, &introduction, beat.received_at);
        }
        // A goodbye by another handle, or another process, no longer counts.
        let known = &mut self.agents[index];
        known.farewell = known.farewell.filter(|farewell| *farewell == handle);
        let known = &self.agents[index];
        let is_panic = frame.is_terminal() && !known.terminal;
        let cause = changes.first().map(|change| change.cause);
        let restarted = cause == Some(Cause::Restarted);
        assert!(changes.len() <= 1);
        if let Some(change) = changes.first() {
            self.check(index, change);
            assert_eq!(change.to, up);
        }
        let known = &self.agents[index];
        match cause {
            None if known.is_dead && is_away => {}
            None => assert!(known.verdict == up && !is_panic, "{known:?} ought to change by {beat:?}"),
            Some(Cause::Restarted) => {
                assert!(sender.origin == Origin::Local && start_time != known.start_time, "{known:?}");
            }
            Some(_) if known.is_dead && is_away => panic!("the dead are not revived by what comes late"),
            Some(Cause::Panicked) => assert!(is_panic),
            Some(Cause::Reported) => assert!(!is_away && known.verdict != up && !is_panic),
            Some(Cause::Recovered) => assert!(is_away && !is_panic),
            Some(other) => panic!("no beat has the cause {other}"),
        }
        let known = &mut self.agents[index];
        if restarted {
            known.start_time = start_time;
            known.handles.clear();
            known.is_dead = false;
            (known.asked, known.three) = (None, None);
            known.learned = None;
            known.busy_until = MonoTime::START;
        }
        if !(known.is_dead && is_away) {
            known.verdict = up;
        }
        known.last_beat = beat.received_at.max(known.last_beat);
        known.doubted = false;
        known.terminal = frame.is_terminal();
        known.sender = sender;
        if !frame.is_terminal()
            && known.handles.iter().any(|known| known.0 == handle && known.1 >= frame.nonce)
        {
            known.mistaken = known.handles.iter().map(|(handle, _)| *handle).max();
        }
        known.note(handle, frame.nonce);
        let has_come_back = restarted || is_away && !known.is_dead;
        if has_come_back && let Some(introduction) = self.introduction(sender) {
            self.introduce(index, &introduction, beat.received_at);
        }
    }

    fn first_beat(
        &mut self,
        beat: &ReceivedBeat,
        handle: u32,
        outcome: FrameOutcome,
        start_time: Option<u64>,
        changes: &[Transition],
    ) {
        let origin = beat.sender.origin;
        let same_origin = self.agents.iter().filter(|known| known.sender.origin == origin).count();
        let is_full = self.agents.len() >= self.policy.max_agents;
        match outcome {
            FrameOutcome::Accepted => {}
            FrameOutcome::Capacity => {
                let departed = |known: &Known| matches!(known.verdict, Verdict::Down | Verdict::Gone);
                assert!(is_full && !self.agents.iter().any(departed), "there is room");
                assert!(changes.is_empty());
                return;
            }
            FrameOutcome::SourceLimit => {
                assert!(matches!(origin, Origin::Udp(_)) && same_origin >= self.policy.max_agents_per_source);
                assert!(changes.is_empty());
                return;
            }
            other => panic!("a first beat is not refused as {other:?}"),
        }
        let [change] = changes else { panic!("a first beat is one change: {changes:?}") };
        let up = Verdict::Up(beat.frame.status);
        assert_eq!((change.from, change.to, change.cause), (None, up, Cause::FirstBeat));
        let mut known = Known {
            sender: beat.sender,
            verdict: up,
            last_beat: beat.received_at,
            asked: None,
            three: None,
            learned: None,
            busy_until: MonoTime::START,
            handles: Vec::new(),
            mistaken: None,
            start_time,
            is_dead: false,
            terminal: beat.frame.is_terminal(),
            farewell: None,
            not_before: beat.received_at,
            doubted: false,
            awaited_until: None,
        };
        known.note(handle, beat.frame.nonce);
        self.agents.push(known);
        if let Some(introduction) = self.introduction(beat.sender) {
            self.introduce(self.agents.len() - 1, &introduction, beat.received_at);
        }
    }

    fn introduction(&mut self, sender: Sender) -> Option<Hello> {
        let place = self.waiting.iter().position(|(waiting, _)| *waiting == sender)?;
        Some(self.waiting.remove(place).1)
    }

    pub(super) fn hello(&mut self, sender: Sender, introduction: &Hello, at: MonoTime) {
        // One that has ended may have a successor under its pid, which says its name first.
        let is_there = |known: &Known| !matches!(known.verdict, Verdict::Down | Verdict::Gone);
        match self.agents.iter().position(|known| known.sender == sender) {
            Some(index) if is_there(&self.agents[index]) => self.introduce(index, introduction, at),
            Some(_) | None => {
                self.waiting.retain(|(waiting, _)| *waiting != sender);
                self.waiting.push((sender, introduction.clone()));
            }
        }
    }

    fn introduce(&mut self, index: usize, introduction: &Hello, at: MonoTime) {
        let known = &mut self.agents[index];
        let longest = self.policy.longest_silence.max(self.policy.stall_after);
        let granted = |asked: Duration| asked.clamp(Duration::from_millis(10), longest);
        match (introduction.stall_after, introduction.interval) {
            (Some(asked), _) => (known.asked, known.three) = (Some(granted(asked)), None),
            (None, Some(interval)) => (known.asked, known.three) = (None, Some(granted(3 * interval))),
            (None, None) => {}
        }
        if let Some(busy_for) = introduction.busy_for {
            known.busy_until = at + busy_for.min(longest);
        }
        known.not_before = at;
    }

    /// A goodbye of `handle` was handled, after the beat `last`.
    pub(super) fn goodbye(&mut self, sender: Sender, (handle, last): (u32, u64), changes: &[Transition]) {
        let Some(index) = self.agents.iter().position(|known| known.sender == sender) else {
            assert!(changes.is_empty(), "nobody takes leave: {changes:?}");
            return;
        };
        let is_over = matches!(self.agents[index].verdict, Verdict::Down | Verdict::Gone);
        let known = &self.agents[index];
        let newest = known.handles.iter().map(|(handle, _)| *handle).max();
        let is_only_one = match sender.origin {
            Origin::Local | Origin::Notify => matches!(known.handles[..], [(known, _)] if known == handle),
            Origin::Udp(_) | Origin::SecureUdp(_) => newest == Some(handle),
            Origin::Named { .. } => unreachable!("nobody reports here"),
        };
        assert!(changes.len() <= usize::from(!is_over), "{changes:?}");
        assert!(is_over || !is_only_one || changes.len() == 1, "who says goodbye is gone");
        if let Some(change) = changes.first() {
            self.check(index, change);
            assert_eq!(change.to, Verdict::Gone);
            self.agents[index].verdict = Verdict::Gone;
            self.agents[index].farewell = Some(handle);
            self.agents[index].note(handle, last);
        }
    }

    /// The end of the process that has `pid` and started at `start_time` was handled.
    pub(super) fn death(&mut self, pid: u32, start_time: u64, death: ExitStatus, changes: &[Transition]) {
        let found = self.find(Origin::Local, pid).filter(|index| {
            self.agents[*index].start_time == Some(start_time) && !self.agents[*index].is_dead
        });
        let found = found.or_else(|| {
            // A process that could not be identified at its first beat may have been identified later.
            let index = self.find(Origin::Local, pid)?;
            (self.agents[index].start_time.is_none() && !changes.is_empty()).then_some(index)
        });
        let Some(index) = found else {
            assert!(changes.is_empty(), "this death is nobody's: {changes:?}");
            return;
        };
        self.agents[index].is_dead = true;
        if matches!(self.agents[index].verdict, Verdict::Down | Verdict::Gone) {
            assert!(changes.is_empty(), "{changes:?}");
            return;
        }
        let [change] = changes else { panic!("a death is one change: {changes:?}") };
        self.check(index, change);
        let is_well = death == ExitStatus::Exited { code: 0 } && !self.agents[index].terminal;
        assert_eq!(change.to, if is_well { Verdict::Gone } else { Verdict::Down });
        self.agents[index].verdict = change.to;
    }

    /// The server was paused. Until it goes on no verdict is possible.
    pub(super) fn blind(&mut self, from: MonoTime, to: MonoTime) {
        self.blind.push((from, to));
        for known in &mut self.agents {
            known.not_before = known.not_before.max(to);
        }
    }

    /// The queue of the Unix socket was found full.
    pub(super) fn queue_full(&mut self, at: MonoTime) {
        self.full.push(at);
    }

    /// Whether the end of this process must reach the tracker.
    pub(super) fn waits_for_death(&self, pid: u32, start_time: u64) -> bool {
        self.find(Origin::Local, pid).is_some_and(|index| {
            self.agents[index].start_time == Some(start_time) && !self.agents[index].is_dead
        })
    }
}

impl Known {
    fn note(&mut self, handle: u32, nonce: u64) {
        if nonce == varta_proto::NONCE_TERMINAL {
            return;
        }
        match self.handles.iter_mut().find(|(known, _)| *known == handle) {
            Some((_, newest)) => *newest = nonce.max(*newest),
            None => self.handles.push((handle, nonce)),
        }
    }
}

/// A status that an ordinary beat may have.
pub(super) const STATUSES: [Status; 3] = [Status::Ok, Status::Degraded, Status::Critical];
