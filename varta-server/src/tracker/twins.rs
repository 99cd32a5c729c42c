//! Telling apart remote agents that share an address and a pid, from the ports that they send from.
//!
//! The wire names neither host nor container. Processes in two containers behind one address may have the same pid,
//! and an agent that connects anew sends from a new port: the first beat from a new port may be either. So it is taken
//! for an agent that is up, the one that was silent for longest, which leaves its old port behind. When something new
//! comes from a port that was left, both are alive: whoever was there first goes on, and the newcomer is taken for another
//! that has been silent since it came. Only when all of them have spoken is it an agent of its own.

use std::collections::HashMap;
use std::time::Duration;

use varta_proto::Frame;

use super::agent::{AgentKey, Rest, Slot};
use super::cause::Cause;
use super::session::Session;
use super::transition::Twin;
use super::verdict::{Event, Verdict};
use super::{Change, Tracker};
use crate::beat::{Lane, ReceivedBeat};
use crate::outcome::Outcome;
use crate::time::MonoTime;
use crate::tracker::Processes;

/// What comes from a port that was left was overtaken on the way if, by the clock of its session, it was sent before that,
/// give or take the jitter of a network.
const JITTER: Duration = Duration::from_millis(20);
/// A frame from a new port continues a session if its clock started at the same moment, give or take the jitter of a
/// network.
const CONTINUES_WITHIN_NANOS: u128 = 50_000_000;
/// Ports that are remembered for one agent at once.
const MOST_FORMER: usize = 16;
/// Agents that have left a port a short while ago. Beyond it a port is left without being remembered, and twins are told
/// apart later, or not while that lasts.
const MOST_TRAILS: usize = 16_384;
/// How often trails that have gone cold are swept out to make room.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A port that an agent has left.
#[derive(Clone, Copy, Debug)]
struct Former {
    lane: Lane,
    session: Session,
    /// The last beat from it.
    last_beat: MonoTime,
    /// When the first beat came from the next port.
    left_at: MonoTime,
    /// How many beats of the agent had been accepted by then.
    beats: u64,
}

impl Former {
    fn was_sent_before_leaving(&self, frame: &Frame) -> bool {
        let after_last = Duration::from_nanos(frame.timestamp.saturating_sub(self.session.timestamp));
        self.last_beat + after_last <= self.left_at + JITTER
    }
}

/// The ports that agents left within the last stall-after, in the order in which they left them.
#[derive(Debug, Default)]
pub(super) struct Trails {
    by_agent: HashMap<u32, Vec<Former>>,
    swept_at: MonoTime,
}

impl Trails {
    fn remember(&mut self, number: u32, former: Former, at: MonoTime, kept: Duration) {
        if self.by_agent.len() >= MOST_TRAILS && at.since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = at;
            self.by_agent.retain(|_, trail| trail.iter().any(|former| former.last_beat + kept > at));
        }
        if self.by_agent.len() >= MOST_TRAILS && !self.by_agent.contains_key(&number) {
            return;
        }
        let trail = self.by_agent.entry(number).or_default();
        trail.retain(|known| known.lane != former.lane && known.last_beat + kept > at);
        // Those that left first stay: of many that beat in turn, the first is the next to come back.
        if trail.len() < MOST_FORMER {
            trail.push(former);
        }
    }

    /// The place in an agent's trail of a port that it left, if that was a short while ago.
    fn find(&self, number: u32, lane: Lane, at: MonoTime, kept: Duration) -> Option<usize> {
        let trail = self.by_agent.get(&number)?;
        trail.iter().position(|former| former.lane == lane && former.last_beat + kept > at)
    }

    pub(super) fn forget(&mut self, number: u32) {
        self.by_agent.remove(&number);
    }
}

/// Whether an agent is not up.
type IsAway = bool;

/// What there is of agents with one address and pid, as a beat from a new port finds it.
#[derive(Default)]
struct Found {
    /// The numbers among twins that are taken, a bit for each.
    taken: u64,
    /// How many have the key of the beat.
    same_key: usize,
    /// Of those, the one that was silent for longest; one that is up goes before all that are not.
    longest_silent: Option<(IsAway, MonoTime, u32)>,
    /// And the one whose session the beat continues best.
    continued: Option<(u128, u32)>,
    /// And the one that has left the port of the beat, with its place in the trail.
    returning: Option<(u32, usize)>,
}

impl Found {
    fn free_twin(&self) -> Option<Twin> {
        Twin::all().find(|twin| self.taken & twin.bit() == 0)
    }
}

impl Tracker {
    /// Takes a beat from a port that no agent is at.
    pub(super) fn handle_new_lane(
        &mut self,
        key: AgentKey,
        beat: &ReceivedBeat,
        processes: &mut impl Processes,
    ) -> Outcome {
        let found = self.find_twins(key, beat);
        let Some((.., silent)) = found.longest_silent else {
            return match found.free_twin() {
                Some(twin) => self.handle_unknown(beat, twin, processes),
                None => Outcome::SourceLimit,
            };
        };
        if beat.frame.is_terminal() {
            // A panic hook has a socket of its own, and sends from it once: nobody moves there. When several could have
            // sent it, it is held against none of them.
            return match found.free_twin() {
                Some(twin) if found.same_key > 1 => self.handle_unknown(beat, twin, processes),
                _ => self.handle_known(silent, beat, processes),
            };
        }
        if let Some((number, place)) = found.returning
            && let Some(former) = self.trails(number).by_agent.get(&number).map(|trail| trail[place])
        {
            if former.session.followed_by(&beat.frame).is_some() {
                if former.was_sent_before_leaving(&beat.frame) {
                    return Outcome::OutOfOrder;
                }
                self.part(number, place, former, found.free_twin(), beat.received_at);
                return self.handle_known(number, beat, processes);
            }
            if beat.frame.nonce != 1 {
                return Outcome::OutOfOrder;
            }
        }
        let number = found.continued.map_or(silent, |(_, number)| number);
        self.leave_port(number, beat.received_at);
        if found.continued.is_none() {
            self.unlearn(number);
        }
        let (slot, rest) = self.agents.both_mut(number);
        slot.key = key;
        if found.continued.is_none() {
            slot.begin_anew(rest, Session::UNHEARD);
        }
        if let Some(introduction) = self.waiting.take(beat.sender) {
            self.introduce(number, &introduction, beat.received_at);
        }
        self.handle_known(number, beat, processes)
    }

    fn find_twins(&self, key: AgentKey, beat: &ReceivedBeat) -> Found {
        let mut found = Found::default();
        for number in self.agents.twins(key) {
            let slot = self.agents.slot(number);
            found.taken |= self.agents.rest(number).twin.bit();
            if slot.key.lane.key != key.lane.key {
                continue;
            }
            found.same_key += 1;
            let is_away = !slot.verdict.is_some_and(Verdict::is_awaited);
            let silent = (is_away, slot.last_beat, number);
            if found.longest_silent.is_none_or(|known| silent < known) {
                found.longest_silent = Some(silent);
            }
            if let Some(distance) = continues(slot, &beat.frame, beat.received_at)
                && found.continued.is_none_or(|known| (distance, number) < known)
            {
                found.continued = Some((distance, number));
            }
            let kept = self.policy.stall_after;
            if let Some(place) = self.trails(number).find(number, key.lane, beat.received_at, kept) {
                found.returning = Some((number, place));
            }
        }
        found
    }

    fn leave_port(&mut self, number: u32, at: MonoTime) {
        let slot = self.agents.slot(number);
        let Slot { session, last_beat, beats, key: AgentKey { lane, .. }, .. } = *slot;
        let former = Former { lane, session, last_beat, left_at: at, beats };
        let kept = self.policy.stall_after;
        self.trails_mut(number).remember(number, former, at, kept);
    }

    /// The port that an agent left speaks again, beside the one that it is at. It goes back to the older one. Whoever came
    /// after it is another agent: one that has been silent since, or else a new one if there is room for it.
    fn part(&mut self, number: u32, place: usize, former: Former, free: Option<Twin>, at: MonoTime) {
        let origin = self.sources.origin(self.agents.slot(number).key.source);
        let twin = free.filter(|_| self.make_room(origin).is_ok());
        // From the former port on the trail is the newcomer's.
        let trail = self.trails_mut(number).by_agent.get_mut(&number).map(|trail| trail.split_off(place));
        let since = |former: Former, beats: u64| former.beats.saturating_sub(beats);
        let younger = trail.into_iter().flatten().skip(1);
        let younger: Vec<Former> =
            younger.map(|left| Former { beats: since(left, former.beats), ..left }).collect();

        self.unlearn(number);
        let (slot, rest) = self.agents.both_mut(number);
        let newcomer = Slot { beats: slot.beats.saturating_sub(former.beats), ..*slot };
        slot.key.lane = former.lane;
        slot.begin_anew(rest, former.session);
        if let Some(other) = self.silent_since(former.left_at, number) {
            let slot = self.agents.slot_mut(number);
            slot.beats = former.beats;
            slot.last_beat = former.last_beat;
            let before = self.agents.slot(other).beats;
            self.go_on_as(other, &newcomer, former.left_at, at);
            for left in younger {
                let left = Former { beats: left.beats + before, ..left };
                let kept = self.policy.stall_after;
                self.trails_mut(other).remember(other, left, at, kept);
            }
            return;
        }
        let Some(twin) = twin else { return };
        let (slot, rest) = self.agents.both_mut(number);
        slot.beats = former.beats;
        slot.last_beat = former.last_beat;
        let rest = Rest::new(self.names.share(rest.name), None, twin);
        let newcomer = self.add(origin, newcomer.without_others(), rest);
        if !younger.is_empty() {
            self.trails_mut(newcomer).by_agent.insert(newcomer, younger);
        }
        self.announce(newcomer, Change::of_first_beat(at));
    }
}

impl Tracker {
    /// The trails of agents that beat the way this one does: those of one must not use up the room of others.
    fn trails(&self, number: u32) -> &Trails {
        &self.trails[self.agents.slot(number).transport(&self.sources).index()]
    }

    fn trails_mut(&mut self, number: u32) -> &mut Trails {
        &mut self.trails[self.agents.slot(number).transport(&self.sources).index()]
    }

    /// The twin of an agent, with the same key, that has said nothing since `then`: the one that was silent for longest.
    fn silent_since(&self, then: MonoTime, number: u32) -> Option<u32> {
        let key = self.agents.slot(number).key;
        let silent = self.agents.twins(key).filter_map(|twin| {
            let slot = self.agents.slot(twin);
            let is_silent = twin != number && slot.key.lane.key == key.lane.key && slot.last_beat < then;
            is_silent.then_some((slot.last_beat, twin))
        });
        silent.min().map(|(_, twin)| twin)
    }

    /// Lets an agent go on as somebody who came from another port at `came_at`.
    fn go_on_as(&mut self, number: u32, newcomer: &Slot, came_at: MonoTime, at: MonoTime) {
        self.leave_port(number, came_at);
        self.unlearn(number);
        let (slot, rest) = self.agents.both_mut(number);
        let Some(before) = slot.verdict else { return };
        let silence = newcomer.last_beat.since(slot.last_beat) + rest.silent_before();
        slot.key.lane = newcomer.key.lane;
        slot.begin_anew(rest, newcomer.session);
        slot.beats += newcomer.beats;
        slot.last_beat = newcomer.last_beat;
        slot.payload = newcomer.payload;
        slot.status = newcomer.status;
        slot.terminal = newcomer.terminal;
        let after = before.next(Event::Beat(newcomer.status));
        slot.verdict = Some(after);
        self.end_absence(number);
        if !before.is_awaited() {
            let look = self.first_look(number);
            self.wheel.arm(number, look);
        }
        if after != before {
            self.recount(before, after);
            let was_up = before.is_awaited() && before != Verdict::Expected;
            let cause = if was_up { Cause::Reported } else { Cause::Recovered };
            let change = Change::new(Some(before), cause, at, silence);
            self.announce(number, change);
        }
    }
}

/// How far the frame is from continuing the session of an agent, if it can be that at all.
fn continues(slot: &Slot, frame: &Frame, at: MonoTime) -> Option<u128> {
    slot.session.followed_by(frame)?;
    let distance = slot.session.distance(slot.last_beat, frame, at);
    (distance <= CONTINUES_WITHIN_NANOS).then_some(distance)
}
