//! The effect of a beat on the agent that it comes from, or that it makes known.

use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::{Origin, ReceivedBeat, Sender};
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::identity::{ProcessIdentity, Processes};
use crate::domain::process::{Lineage, PidfdTag, ProcessPlace, ProcessStart};
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot, IndexKey, Inspection};
use crate::domain::tracker::agents::names::NameSource;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::request::TrackerRequest;
use crate::domain::tracker::agents::session::{FramePosition, Session};
use crate::domain::tracker::state::{NAMELESS, Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::Twin;
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};

impl Tracker {
    /// The key of the agent that sent a beat.
    #[inline]
    pub(in crate::domain::tracker) fn key_of(&self, sender: Sender) -> IndexKey {
        let Sender { origin, pid, lane } = sender;
        IndexKey { source: self.sources.find(origin).unwrap_or(SourceId::UNHEARD), pid, lane }
    }

    /// Handles a beat. `number` is most likely that of its agent, if the agent is known.
    #[inline]
    pub(in crate::domain::tracker) fn handle_beat(
        &mut self,
        beat: &ReceivedBeat,
        number: u32,
        processes: &mut impl Processes,
    ) -> FrameOutcome {
        let key = self.key_of(beat.sender);
        let found = if self.agents.is(number, key) { Some(number) } else { self.agents.find(key) };
        match found {
            Some(number) if self.is_ordinary(number, beat) && self.agents.slot(number).is_plain() => {
                self.handle_ordinary(number, beat)
            }
            Some(number) => self.handle_special(number, beat, processes),
            None if key.source == SourceId::UNHEARD => self.handle_unknown(beat, Twin::FIRST, processes),
            None => self.handle_new_lane(key, beat, processes),
        }
    }

    /// Handles a beat that is not ordinary, or of an agent that is not plain. Most of the latter count.
    #[cold]
    #[inline(never)]
    fn handle_special(
        &mut self,
        number: u32,
        beat: &ReceivedBeat,
        processes: &mut impl Processes,
    ) -> FrameOutcome {
        if !self.agents.slot(number).is_plainly_counting() || !self.is_ordinary(number, beat) {
            return self.handle_known(number, beat, processes);
        }
        // One that is refused for its rate has moved it all the same.
        self.agents.slot_mut(number).note_counter(&beat.frame, beat.received_at);
        self.handle_ordinary(number, beat)
    }

    /// Whether a beat is the next of a session and reports nothing new, as nearly all do.
    #[inline(always)]
    fn is_ordinary(&self, number: u32, beat: &ReceivedBeat) -> bool {
        let (slot, frame) = (self.agents.slot(number), &beat.frame);
        slot.verdict == Some(Verdict::Up(frame.status))
            && !slot.terminal
            && !frame.is_terminal()
            && slot.session.followed_by(frame) == Some((0, false))
            && slot.last_beat <= beat.received_at
            && !self.adaptive_timeouts.is_on()
    }

    /// What [`Tracker::handle_known`] does for such a beat.
    #[inline(always)]
    fn handle_ordinary(&mut self, number: u32, beat: &ReceivedBeat) -> FrameOutcome {
        if let Some(limited) = self.limit(number, beat.received_at) {
            self.agents.slot_mut(number).note_limited(&beat.frame, beat.received_at);
            return limited;
        }
        let slot = self.agents.slot_mut(number);
        slot.session = Session::of(&beat.frame);
        slot.accept(&beat.frame, beat.received_at);
        FrameOutcome::Accepted
    }

    pub(super) fn handle_unknown(
        &mut self,
        beat: &ReceivedBeat,
        twin: Twin,
        processes: &mut impl Processes,
    ) -> FrameOutcome {
        let Sender { origin, pid, lane } = beat.sender;
        if let Err(refused) = self.make_room(origin) {
            return refused;
        }
        if !beat.frame.is_terminal() && !self.total_rate.try_take(&mut self.total_usage, beat.received_at) {
            return FrameOutcome::RateLimitedGlobal;
        }
        let Identity { name, source, started, place, lineage, .. } = identify(origin, pid, processes);
        let key = IndexKey { source: SourceId::LOCAL, pid, lane };
        let slot = AgentHot::first_heard(key, &beat.frame, beat.received_at).from(origin);
        let rest = AgentCold { name_source: source, ..AgentCold::new(self.names.take(&name), started, twin) };
        let number = self.add(origin, slot, rest);
        self.places.set(number, place);
        self.apply_rules(number);
        self.watch(number);
        if let Some(introduction) = self.waiting.take(beat.sender) {
            self.introduce(number, &introduction, beat.received_at);
        }
        let from = self.mark_seen(number);
        let change = self.take_over_identity(number, lineage, beat.received_at, processes);
        let first_beat = TransitionDetails { from, ..TransitionDetails::of_first_beat(beat.received_at) };
        self.announce(number, change.unwrap_or(first_beat));
        FrameOutcome::Accepted
    }

    pub(super) fn handle_known(
        &mut self,
        number: u32,
        beat: &ReceivedBeat,
        processes: &mut impl Processes,
    ) -> FrameOutcome {
        let frame = &beat.frame;
        let slot = self.agents.slot_mut(number);
        if beat.sender.origin == Origin::Notify && !slot.is_notify() {
            // It beats by itself, and is judged by that.
            return FrameOutcome::Accepted;
        }
        let at = beat.received_at.max(slot.last_beat);
        if at != beat.received_at {
            self.statistics.clamped_stamps += 1;
        }

        // The deadline before this beat, if its timeout is about to be learned again.
        let due = self.adaptive_timeouts.is_on().then(|| self.deadline(number));
        let slot = self.agents.slot_mut(number);
        // A beat that reports something new is never refused for its rate.
        let was_stuck = slot.is_stuck();
        let was_away = !matches!(slot.verdict, Some(Verdict::Up(_))) && !slot.is_held_by_job() && !was_stuck;
        let moves_again = was_stuck && slot.is_moved_by(frame);
        let is_news = frame.status != slot.status || frame.is_terminal() || was_away || moves_again;
        if !is_news && let Some(limited) = self.limit(number, at) {
            let is_next = self.agents.slot_mut(number).note_limited(frame, at);
            if let Some(due) = due.filter(|_| is_next) {
                self.observe(number, frame, FramePosition::Next { lost: 0, wrapped: false }, at, due);
            }
            return limited;
        }

        // A terminal frame comes from outside the sessions: it has no nonce in any of them.
        let mut learns_from = None;
        let mut begins_to_beat = false;
        let mut mistake = None;
        if !frame.is_terminal() {
            let (slot, rest) = self.agents.both_mut(number);
            if was_away {
                mistake = slot.find_mistake(rest, frame, at);
            }
            let place = slot.place(rest, frame, at);
            let skips = slot.has_page();
            let may_be_another = match place {
                FramePosition::Next { lost, wrapped } => {
                    if lost > 0 && !skips {
                        rest.lost = rest.lost.saturating_add(u32::try_from(lost).unwrap_or(u32::MAX));
                        self.statistics.lost = self.statistics.lost.saturating_add(lost);
                    }
                    self.statistics.nonce_wraps += u64::from(wrapped);
                    was_away
                }
                FramePosition::Opens | FramePosition::OutOfOrder => {
                    // A service that also beats is awaited from then on.
                    begins_to_beat = slot.is_unawaited() && beat.sender.origin != Origin::Notify;
                    true
                }
                FramePosition::Duplicate => return FrameOutcome::Duplicate,
            };
            // To look up the process costs more than the frame. A beat that passed as new has not been
            // counted yet.
            let may_ask = may_be_another && (!is_news || self.limit(number, at).is_none());
            if may_ask && self.is_new_incarnation(number, processes) {
                return self.restart(number, beat, at);
            }
            if place == FramePosition::OutOfOrder {
                return FrameOutcome::OutOfOrder;
            }
            learns_from = due.map(|due| (place, due));
        }
        if was_away && self.agents.rest(number).is_dead {
            // Sent before its process ended, and read late.
            self.end_absence(number);
            self.agents.slot_mut(number).accept(frame, at);
        } else {
            if was_away && let Some(introduction) = self.waiting.take(beat.sender) {
                self.introduce(number, &introduction, at);
            }
            self.accept(number, beat, at, mistake);
            if begins_to_beat {
                self.agents.slot_mut(number).set_unawaited(false);
                self.note(number);
                self.wheel.arm(number, self.first_check(number));
            }
            if let Some((place, due)) = learns_from {
                // An agent that was away has just been armed again, for its current deadline.
                let due = if was_away { self.deadline(number) } else { due };
                self.observe(number, frame, place, at, due);
            }
        }
        FrameOutcome::Accepted
    }

    /// Counts a beat against the limits; returns the outcome if one is exceeded.
    #[inline]
    pub(super) fn limit(&mut self, number: u32, at: MonoTime) -> Option<FrameOutcome> {
        if !self.agent_rate.try_take(&mut self.agents.slot_mut(number).usage, at) {
            Some(FrameOutcome::RateLimitedAgent)
        } else if !self.total_rate.try_take(&mut self.total_usage, at) {
            Some(FrameOutcome::RateLimitedGlobal)
        } else {
            None
        }
    }

    #[inline]
    fn accept(&mut self, number: u32, beat: &ReceivedBeat, at: MonoTime, mistake: Option<Duration>) {
        let slot = self.agents.slot_mut(number);
        let silence = at.since(slot.last_beat);
        let panicked = beat.frame.is_terminal() && !slot.terminal;
        let has_moved = slot.is_moved_by(&beat.frame);
        slot.note_counter(&beat.frame, at);
        slot.accept(&beat.frame, at);
        let Some(before) = slot.verdict else { return };
        let is_stuck = slot.is_stuck();
        let is_held = slot.is_held_by_job() || is_stuck && !has_moved;
        let after = if is_held { before } else { before.next(Event::Beat(beat.frame.status)) };
        let is_due = slot.is_counter_due() && !is_stuck;
        let silence = if is_stuck { self.stood_for(number, at) } else { silence };
        if is_stuck {
            // It beats, whatever its counter does.
            self.end_absence(number);
        } else if is_due {
            self.review_counter(number, has_moved, at);
        }
        if after == before && !panicked {
            return;
        }
        let slot = self.agents.slot_mut(number);
        slot.verdict = Some(after);
        if !matches!(before, Verdict::Up(_) | Verdict::Unknown) && !is_held {
            slot.begin_counting();
        }
        self.recount(before, after);
        let silence = silence + self.end_absence(number);
        let cause = match before {
            _ if panicked => Cause::Panicked,
            Verdict::Up(_) => Cause::Reported,
            _ if is_stuck => Cause::Progressed,
            Verdict::Stalled | Verdict::Down | Verdict::Gone | Verdict::Unknown | Verdict::Expected => {
                Cause::Recovered
            }
        };
        self.agents.rest_mut(number).inquiry = Inspection::None;
        if !before.is_awaited() {
            self.wheel.arm(number, self.first_check(number));
        }
        let change = TransitionDetails::new(Some(before), cause, at, silence);
        self.announce(number, change);
        if let Some(lasted) = mistake {
            self.note_mistake(number, lasted);
        }
    }

    /// Starts a new incarnation: the process that beat under this pid is gone and another has taken the pid.
    /// Nothing of the old one is kept but how often the series stalled, and how often that was a false
    /// positive.
    fn restart(&mut self, number: u32, beat: &ReceivedBeat, at: MonoTime) -> FrameOutcome {
        let silence = self.silence(number, at);
        let slot = self.agents.slot_mut(number);
        let before = slot.verdict;
        let AgentHot { usage, key, .. } = *slot;
        let first = AgentHot::first_heard(key, &beat.frame, at);
        // Under one name for its origin an agent is one and the same to who keeps a list.
        *slot = AgentHot { usage, ..if slot.is_notify() { first.from(Origin::Notify) } else { first } };
        let rest = self.agents.rest_mut(number);
        let AgentCold { stalls, name_source, .. } = *rest;
        let mistakes = rest.false_positives();
        *rest = AgentCold { stalls, name_source, ..AgentCold::new(rest.name, rest.started, rest.twin) };
        rest.add_mistakes(mistakes);
        if let Some(before) = before {
            self.recount(before, Verdict::Up(beat.frame.status));
        }
        self.adaptive_timeouts.forget(number);
        self.apply_rules(number);
        if let Some(introduction) = self.waiting.take(beat.sender) {
            self.introduce(number, &introduction, at);
        }
        self.wheel.arm(number, self.first_check(number));
        self.watch(number);
        let change = TransitionDetails::new(before, Cause::Restarted, at, silence);
        self.announce(number, change);
        FrameOutcome::Accepted
    }

    /// Whether the pid of a local agent belongs to another process than before. Takes over its identity if
    /// so, and its name in any case: `exec` changes that.
    fn is_new_incarnation(&mut self, number: u32, processes: &mut impl Processes) -> bool {
        let IndexKey { source, pid, .. } = self.agents.slot(number).key;
        if source != SourceId::LOCAL {
            return false;
        }
        let Identity { name, source: name_source, started, place, has_ended, .. } =
            identify(Origin::Local, pid, processes);
        let Some(started) = started else { return false };
        self.places.set(number, place);
        let rest = self.agents.rest_mut(number);
        let before = rest.started;
        // Of a process that had ended when its first beat was handled, or while there was no server, nothing
        // is known; but a process that can be looked up is another.
        let is_another = before.map_or(rest.is_dead, |before| !before.may_be(started));
        // What is known of it is not forgotten when that cannot be read again.
        if is_another || started.tag() != PidfdTag::UNKNOWN || before.is_none() {
            rest.started = Some(started);
        }
        if is_another || rest.name_source != NameSource::Agent {
            self.rename(number, &name, name_source);
        }
        let rest = self.agents.rest_mut(number);
        // A beat of a process that is there proves that it lives, whatever was concluded before.
        let has_revived = rest.is_dead && !is_another && !has_ended;
        rest.is_dead &= !has_revived;
        if !is_another && (before.is_none() || has_revived) {
            self.watch(number);
        }
        is_another
    }

    /// Requests a report of the end of an agent's process, or a check whether it has ended.
    pub(super) fn watch(&mut self, number: u32) {
        let IndexKey { source, pid, .. } = self.agents.slot(number).key;
        if let Some(process) = self.process(number) {
            self.requests.push_back(TrackerRequest::Watch(process));
        } else if source == SourceId::LOCAL {
            self.requests.push_back(TrackerRequest::Find(pid));
        }
    }
}

/// The identity of an agent until it names itself.
struct Identity {
    name: String,
    source: NameSource,
    /// When its process was started, if that is known.
    started: Option<ProcessStart>,
    place: Option<ProcessPlace>,
    lineage: Lineage,
    has_ended: bool,
}

fn identify(origin: Origin, pid: u32, processes: &mut impl Processes) -> Identity {
    let common = |name| Identity {
        name,
        source: NameSource::Common,
        started: None,
        place: None,
        lineage: Lineage::default(),
        has_ended: false,
    };
    match origin.address() {
        Some(address) => common(address.to_string()),
        None => match processes.identify(pid) {
            Some(ProcessIdentity { start_time, tag, name, is_group, is_unit, place, lineage, has_ended }) => {
                let source = match (is_group, is_unit) {
                    (_, true) => NameSource::Unit,
                    (true, false) => NameSource::Group,
                    (false, false) => NameSource::Common,
                };
                let started = Some(ProcessStart::new(start_time, tag));
                Identity { name, source, started, place, lineage, has_ended }
            }
            None => common(NAMELESS.to_owned()),
        },
    }
}
