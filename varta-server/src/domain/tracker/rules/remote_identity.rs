//! The identity of remote agents that share an address and a pid, by the ports that they send from.
//!
//! The wire names neither host nor container. Processes in two containers behind one address may have the
//! same pid, and an agent that reconnects sends from a new port: the first beat from a new port may be
//! either. So it is attributed to an agent that is up, the one that was silent for longest, which leaves its
//! old port behind. When something new comes from a port that was left, both are alive: the earlier sender
//! continues the agent, and the newcomer is attributed to another that has been silent since it came. Only
//! when all of them have beaten is the newcomer an agent of its own.
//!
//! Whoever introduces itself by a name before its first beat is none of those that have introduced themselves by
//! others: the pid of a process that has ended is soon another's, and in containers most have the same.

use varta_proto::Frame;

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, Sender};
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::identity::Processes;
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot, IndexKey};
use crate::domain::tracker::agents::names::NameSource;
use crate::domain::tracker::agents::port_history::{PortHistory, PreviousPort};
use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::Twin;
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};

/// A frame from a new port continues a session if the clocks of both started at the same moment, give or take
/// the jitter of a network.
const CONTINUES_WITHIN_NANOS: u128 = 50_000_000;

/// Whether an agent has introduced itself by another name than the newcomer.
type HasOtherName = bool;

/// Whether an agent is not up.
type IsDeparted = bool;

/// The agents with one address and pid, as a beat from a new port finds them.
#[derive(Default)]
struct RemoteMatch {
    /// The twin numbers that are taken, a bit for each.
    taken: u64,
    /// The number of agents with the key of the beat.
    same_key: usize,
    /// Of those, the one that was silent for longest; one that is up comes before all that are not, and after all of them
    /// those with other names.
    longest_silent: Option<(HasOtherName, IsDeparted, MonoTime, u32)>,
    /// Of those, the one whose session the beat continues best.
    continued: Option<(u128, u32)>,
    /// Of those, the one that has left the port of the beat, with the index in its history.
    returning: Option<(u32, usize)>,
}

impl RemoteMatch {
    fn free_twin(&self) -> Option<Twin> {
        Twin::all().find(|twin| self.taken & twin.bit() == 0)
    }
}

impl Tracker {
    /// Handles a beat from a port that no agent is at.
    pub(super) fn handle_new_lane(
        &mut self,
        key: IndexKey,
        beat: &ReceivedBeat,
        processes: &mut impl Processes,
    ) -> FrameOutcome {
        let found = self.find_twins(key, beat);
        let Some((has_other_name, .., silent)) = found.longest_silent else {
            return match found.free_twin() {
                Some(twin) => self.handle_unknown(beat, twin, processes),
                None => FrameOutcome::SourceLimit,
            };
        };
        if beat.frame.is_terminal() {
            // A panic hook has a socket of its own, and sends from it once: no agent moves there. When
            // several could have sent it, it counts against none of them.
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
                    return FrameOutcome::OutOfOrder;
                }
                self.part(number, place, former, found.free_twin(), beat.received_at);
                return self.handle_known(number, beat, processes);
            }
            if beat.frame.nonce != 1 {
                return FrameOutcome::OutOfOrder;
            }
        }
        if has_other_name
            && found.continued.is_none()
            && let Some(twin) = found.free_twin()
        {
            return self.handle_unknown(beat, twin, processes);
        }
        let number = found.continued.map_or(silent, |(_, number)| number);
        self.leave_port(number, beat.received_at);
        if found.continued.is_none() {
            self.forget_arrivals(number);
        }
        let (slot, rest) = self.agents.both_mut(number);
        slot.key = key;
        if found.continued.is_none() {
            slot.begin_anew(rest, Session::UNHEARD);
        }
        if let Some(introduction) = self.waiting.take(beat.sender)
            && self.introduce(number, &introduction, beat.received_at)
        {
            self.replace_predecessor(number, beat.received_at, processes);
        }
        self.handle_known(number, beat, processes)
    }

    fn find_twins(&self, key: IndexKey, beat: &ReceivedBeat) -> RemoteMatch {
        let mut found = RemoteMatch::default();
        for number in self.agents.twins(key) {
            let slot = self.agents.slot(number);
            found.taken |= self.agents.rest(number).twin.bit();
            if slot.key.lane.key != key.lane.key {
                continue;
            }
            found.same_key += 1;
            let is_away = !slot.verdict.is_some_and(Verdict::is_awaited);
            let silent = (self.has_other_name(number, beat.sender), is_away, slot.last_beat, number);
            if found.longest_silent.is_none_or(|known| silent < known) {
                found.longest_silent = Some(silent);
            }
            if let Some(distance) = is_same_sender(slot, &beat.frame, beat.received_at)
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

    /// Whether an agent has introduced itself by another name than this sender, which has not beaten yet.
    fn has_other_name(&self, number: u32, sender: Sender) -> bool {
        let AgentCold { name, name_source, .. } = self.agents.rest(number);
        *name_source == NameSource::Agent
            && self.waiting.name_of(sender).is_some_and(|said| **self.names.get(*name) != *said.as_str())
    }

    fn leave_port(&mut self, number: u32, at: MonoTime) {
        let slot = self.agents.slot(number);
        let AgentHot { session, last_beat, beats, key: IndexKey { lane, .. }, .. } = *slot;
        let former = PreviousPort { lane, session, last_beat, left_at: at, beats };
        let kept = self.policy.stall_after;
        self.trails_mut(number).remember(number, former, at, kept);
    }

    /// Separates two agents: the port that an agent left sends again, in addition to its current one. The
    /// agent goes back to the older port. The newcomer is another agent: one that has been silent since, or
    /// else a new one if there is room for it.
    fn part(&mut self, number: u32, place: usize, former: PreviousPort, free: Option<Twin>, at: MonoTime) {
        let origin = self.sources.origin(self.agents.slot(number).key.source);
        let twin = free.filter(|_| self.make_room(origin).is_ok());
        // From the previous port on the history is the newcomer's.
        let trail = self.trails_mut(number).by_agent.get_mut(&number).map(|trail| trail.split_off(place));
        let since = |former: PreviousPort, beats: u64| former.beats.saturating_sub(beats);
        let younger = trail.into_iter().flatten().skip(1);
        let younger: Vec<PreviousPort> =
            younger.map(|left| PreviousPort { beats: since(left, former.beats), ..left }).collect();

        self.forget_arrivals(number);
        let (slot, rest) = self.agents.both_mut(number);
        let newcomer = AgentHot { beats: slot.beats.saturating_sub(former.beats), ..*slot };
        slot.key.lane = former.lane;
        slot.begin_anew(rest, former.session);
        if let Some(other) = self.silent_since(former.left_at, number) {
            let slot = self.agents.slot_mut(number);
            slot.beats = former.beats;
            slot.last_beat = former.last_beat;
            let before = self.agents.slot(other).beats;
            self.go_on_as(other, &newcomer, former.left_at, at);
            for left in younger {
                let left = PreviousPort { beats: left.beats + before, ..left };
                let kept = self.policy.stall_after;
                self.trails_mut(other).remember(other, left, at, kept);
            }
            return;
        }
        let Some(twin) = twin else { return };
        let (slot, rest) = self.agents.both_mut(number);
        slot.beats = former.beats;
        slot.last_beat = former.last_beat;
        let rest = AgentCold::new(self.names.share(rest.name), None, twin);
        let newcomer = self.add(origin, newcomer.without_others(), rest);
        if !younger.is_empty() {
            self.trails_mut(newcomer).by_agent.insert(newcomer, younger);
        }
        self.announce(newcomer, TransitionDetails::of_first_beat(at));
    }
}

impl Tracker {
    /// The port history of the agents on this one's transport: those of one must not use up the room of
    /// others.
    fn trails(&self, number: u32) -> &PortHistory {
        &self.port_histories[self.agents.slot(number).transport(&self.sources).index()]
    }

    fn trails_mut(&mut self, number: u32) -> &mut PortHistory {
        &mut self.port_histories[self.agents.slot(number).transport(&self.sources).index()]
    }

    /// The twin of an agent, with the same key, that has sent nothing since `then`: the one that was silent
    /// for longest.
    fn silent_since(&self, then: MonoTime, number: u32) -> Option<u32> {
        let key = self.agents.slot(number).key;
        let silent = self.agents.twins(key).filter_map(|twin| {
            let slot = self.agents.slot(twin);
            let is_silent = twin != number && slot.key.lane.key == key.lane.key && slot.last_beat < then;
            is_silent.then_some((slot.last_beat, twin))
        });
        silent.min().map(|(_, twin)| twin)
    }

    /// Lets an agent continue as a newcomer that came from another port at `came_at`.
    fn go_on_as(&mut self, number: u32, newcomer: &AgentHot, came_at: MonoTime, at: MonoTime) {
        self.leave_port(number, came_at);
        self.forget_arrivals(number);
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
            let look = self.first_check(number);
            self.wheel.arm(number, look);
        }
        if after != before {
            self.recount(before, after);
            let was_up = before.is_awaited() && before != Verdict::Expected;
            let cause = if was_up { Cause::Reported } else { Cause::Recovered };
            let change = TransitionDetails::new(Some(before), cause, at, silence);
            self.announce(number, change);
        }
    }
}

/// How far the frame is from continuing the session of an agent, in nanoseconds; `None` if it cannot.
fn is_same_sender(slot: &AgentHot, frame: &Frame, at: MonoTime) -> Option<u128> {
    slot.session.followed_by(frame)?;
    let distance = slot.session.distance(slot.last_beat, frame, at);
    (distance <= CONTINUES_WITHIN_NANOS).then_some(distance)
}
