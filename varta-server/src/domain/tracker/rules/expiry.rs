//! The effects of a passed deadline, an inspection and a goodbye on an agent.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::{Origin, Transport};
use crate::domain::process::{Dossier, InspectionDepth, Lineage, ProcessActivity, ProcessId};
use crate::domain::tracker::agents::agent::{IndexKey, Inspection, PageUse};
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::request::TrackerRequest;
use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::agents::snapshot::ForgetReason;
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};

/// How long an agent that is gone is kept.
const GONE_KEPT: Duration = Duration::from_secs(60);

impl Tracker {
    /// Handles the report that the page that [`Tracker::poll_unread`] named has been read, and its beats
    /// handled.
    pub fn handle_read(&mut self, pid: u32, now: MonoTime) {
        let agent = self.agents.find(IndexKey::local(pid));
        if let Some(number) = agent.filter(|number| self.agents.slot(*number).page() == PageUse::Read) {
            self.check_deadline(number, now);
        }
    }

    /// The stall timeout of the process of this host with this pid, if it is an agent.
    #[must_use]
    pub fn stall_after_of_process(&self, pid: u32) -> Option<Duration> {
        self.agents.find(IndexKey::local(pid)).map(|number| self.stall_after(number))
    }

    /// Handles the result of a [`TrackerRequest::Look`]; `None` when the process could not be inspected.
    ///
    /// Nothing changes if the agent has beaten since, or if the verdict was given without the result.
    pub fn handle_evidence(&mut self, process: ProcessId, seen: Option<Arc<Dossier>>, now: MonoTime) {
        let Some(number) = self.find_process(process) else { return };
        let awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        let looking =
            matches!(self.agents.rest(number).inquiry, Inspection::Looking | Inspection::LookingAgain);
        if !awaited || !looking {
            return;
        }
        if self.deadline(number) <= now {
            self.decide(number, now, seen);
        } else if self.stands(number, now) {
            self.mark_stuck(number, now, seen);
        }
    }

    /// Handles a goodbye: the agent's silence from now on is intended, unless another of its handles still
    /// beats.
    pub(super) fn handle_goodbye(&mut self, number: u32, last: Session, cause: Cause, at: MonoTime) {
        let stall_after = self.stall_after(number);
        self.note_presence(number, at);
        let (slot, rest) = self.agents.both_mut(number);
        let Some(before) = slot.verdict else { return };
        if !slot.say_goodbye(rest, last, at, stall_after) {
            return;
        }
        let after = before.next(Event::SaidGoodbye);
        if after == before {
            return;
        }
        let silence = self.silence(number, at);
        let change = TransitionDetails::new(Some(before), cause, at, silence);
        self.mark_departed(number, after, Lineage::default(), change);
    }

    /// Checks an agent whose entry in the wheel has expired.
    pub(in crate::domain::tracker) fn check_deadline(&mut self, number: u32, now: MonoTime) {
        if self.end_grace(number, now) {
            return;
        }
        match self.agents.slot(number).verdict {
            Some(Verdict::Up(_) | Verdict::Unknown | Verdict::Expected) => self.judge(number, now),
            Some(verdict @ (Verdict::Stalled | Verdict::Down | Verdict::Gone)) => {
                let forget_at = self.forget_at(number, verdict);
                if self.agents.slot(number).is_held_by_job() {
                    // Its run is still under way.
                    self.wheel.arm(number, now + self.policy.forget_after);
                } else if now >= forget_at {
                    self.forget(number, ForgetReason::Expired);
                } else {
                    self.wheel.arm(number, forget_at);
                }
            }
            None => {}
        }
    }

    /// When an agent with this verdict is forgotten.
    pub(super) fn forget_at(&self, number: u32, verdict: Verdict) -> MonoTime {
        let rest = self.agents.rest(number);
        let kept = self.kept(self.names.get(rest.name), verdict).saturating_sub(rest.silent_before());
        let slot = self.agents.slot(number);
        if let Origin::Named { .. } = slot.origin(&self.sources) {
            // Its deadline may be later than the end of the time for which others are kept.
            return slot.last_beat + Duration::from_millis(u64::from(slot.fell_after)) + kept;
        }
        slot.last_beat + kept
    }

    /// How long an agent of this name is kept with this verdict after its last beat.
    pub(super) fn kept(&self, name: &str, verdict: Verdict) -> Duration {
        self.policy.rules.forget_after_for(name).with(verdict).unwrap_or(match verdict {
            Verdict::Gone => GONE_KEPT.min(self.policy.forget_after),
            Verdict::Stalled | Verdict::Down | Verdict::Up(_) | Verdict::Unknown | Verdict::Expected => {
                self.policy.forget_after
            }
        })
    }

    /// Checks the deadline of an agent whose beat is awaited.
    fn judge(&mut self, number: u32, now: MonoTime) {
        let deadline = self.deadline(number);
        let process = self.process(number);
        if deadline == MonoTime::NEVER {
            return self.wheel.arm(number, deadline);
        }
        if now < deadline {
            if self.stands(number, now) {
                return self.judge_standing(number, now);
            }
            self.note_unseen(number, now);
            let half = self.first_check(number);
            let slot = self.agents.slot_mut(number);
            if slot.has_page() {
                slot.set_page(PageUse::Unread);
            }
            let rest = self.agents.rest_mut(number);
            if now < half {
                rest.inquiry = Inspection::None;
                self.wheel.arm(number, half);
                return;
            }
            match (rest.inquiry, process) {
                (Inspection::None, Some(process)) => {
                    rest.inquiry = Inspection::Sampled;
                    self.ask_for_look(number, process, InspectionDepth::Quick, now);
                }
                // What is seen before the deadline says nothing of the time after it.
                (Inspection::Looking, _) => rest.inquiry = Inspection::Sampled,
                (Inspection::LookingAgain, _) => rest.inquiry = Inspection::InGrace,
                (
                    Inspection::None | Inspection::Sampled | Inspection::InGrace | Inspection::AwaitsRoom,
                    _,
                ) => {}
            }
            let moves_until = self.counter_deadline(number).filter(|until| now < *until);
            self.wheel.arm(number, moves_until.map_or(deadline, |until| deadline.min(until)));
            return;
        }
        if !self.has_read(number) {
            self.wheel.arm(number, now);
            return;
        }
        // The wheel may be early, with this time as with any.
        let (looking, waits_until) = match self.agents.rest(number).inquiry {
            Inspection::None | Inspection::Sampled => (Inspection::Looking, None),
            Inspection::InGrace => (Inspection::LookingAgain, Some(deadline + self.stall_after(number))),
            Inspection::AwaitsRoom => (Inspection::LookingAgain, self.has_room_at(number)),
            at @ (Inspection::Looking | Inspection::LookingAgain) => {
                match self.inspection_budget.waits_until(number, now) {
                    Some(until) => (at, Some(until)),
                    None => return self.decide(number, now, None),
                }
            }
        };
        if let Some(until) = waits_until.filter(|until| now < *until) {
            return self.wheel.arm(number, until);
        }
        if !self.await_look(number, looking, now) {
            self.decide(number, now, None);
        }
    }

    /// Has the verdict on an agent wait for a full inspection of its process. Returns whether it does: not without a
    /// process, and beyond the budget.
    pub(super) fn await_look(&mut self, number: u32, looking: Inspection, now: MonoTime) -> bool {
        let Some(process) = self.process(number) else { return false };
        if !self.ask_for_look(number, process, InspectionDepth::Full, now) {
            return false;
        }
        self.agents.rest_mut(number).inquiry = looking;
        let until = self.inspection_budget.wait_for(number, now);
        self.wheel.arm(number, until);
        true
    }

    /// Whether the newest beat in an agent's page is known; if not, requests a read. A page that has been
    /// read and gave no beat has none.
    pub(super) fn has_read(&mut self, number: u32) -> bool {
        let slot = self.agents.slot_mut(number);
        match slot.page() {
            PageUse::None => true,
            PageUse::Unread => {
                slot.set_page(PageUse::Read);
                self.unread.push_back(slot.key.pid);
                false
            }
            PageUse::Read if self.unread.contains(&slot.key.pid) => false,
            PageUse::Read => {
                slot.set_page(PageUse::Unread);
                true
            }
        }
    }

    /// Decides on a silence beyond its deadline, with the findings about the process. If those do not explain
    /// it, the agent is `unknown` until the queue of its socket has had room for a stall timeout; and if beats
    /// may have been lost otherwise or there is mass silence, it is given grace first.
    fn decide(&mut self, number: u32, now: MonoTime, seen: Option<Arc<Dossier>>) {
        let is_held_up = seen.as_ref().is_some_and(|dossier| dossier.explanation.activity.is_blocked());
        let had_a_chance = matches!(
            self.agents.rest(number).inquiry,
            Inspection::InGrace | Inspection::AwaitsRoom | Inspection::LookingAgain
        );
        if let Some(until) = self.has_room_at(number).filter(|until| !is_held_up && now < *until) {
            self.agents.rest_mut(number).inquiry = Inspection::AwaitsRoom;
            self.wheel.arm(number, until);
            return self.call_unknown(number, Cause::QueueFull, now);
        }
        let doubt = if is_held_up || had_a_chance { None } else { self.give_grace(number, now) };
        if let Some(doubt) = doubt {
            self.agents.rest_mut(number).inquiry = Inspection::InGrace;
            let until = self.deadline(number) + self.stall_after(number);
            self.wheel.arm(number, until);
            let source = self.agents.slot(number).key.source;
            self.incidents.hold_open(source, Verdict::Stalled, now, until);
            self.call_unknown(number, doubt, now);
        } else {
            self.mark_stalled(number, now, seen);
        }
    }

    /// The reason to give an agent grace: why its silence may not be its own.
    fn give_grace(&mut self, number: u32, now: MonoTime) -> Option<Cause> {
        let transport = self.agents.slot(number).transport(&self.sources);
        if self.may_have_lost(number) {
            Some(Cause::Lossy)
        } else if self.is_mass_silence(transport, now) {
            Some(Cause::ObserverBlind)
        } else {
            None
        }
    }

    /// When the queue of the Unix socket has had room for a stall timeout, if it was full during the silence
    /// of an agent of this host. The kernel refuses the beats of whoever comes to a full queue, and nothing
    /// tells whose they are. An agent with a page needs no queue.
    fn has_room_at(&self, number: u32) -> Option<MonoTime> {
        let slot = self.agents.slot(number);
        let uses_queue = slot.key.source == SourceId::LOCAL && !slot.has_page();
        let transport = slot.transport(&self.sources);
        let full_at = self.lost_at[transport.index()].filter(|full_at| *full_at > slot.last_beat)?;
        uses_queue.then(|| full_at + self.stall_after(number))
    }

    /// Whether beats of a silent agent of another host may have been lost on the way.
    fn may_have_lost(&self, number: u32) -> bool {
        let slot = self.agents.slot(number);
        let transport = slot.transport(&self.sources);
        !matches!(transport, Transport::Unix | Transport::Notify)
            && self.lost_at[transport.index()].is_some_and(|lost_at| lost_at > slot.last_beat)
    }

    /// Requests an inspection of an agent's process, if the budget allows it.
    fn ask_for_look(
        &mut self,
        number: u32,
        process: ProcessId,
        depth: InspectionDepth,
        now: MonoTime,
    ) -> bool {
        let may = self.inspection_budget.allow(now);
        if may {
            let child = self.agents.rest(number).extra.as_ref().and_then(|extra| extra.child);
            self.requests.push_back(TrackerRequest::Look { process, child, depth });
        }
        may
    }

    /// Calls an agent `unknown` if it would be late by now, had the server been able to observe it.
    fn note_unseen(&mut self, number: u32, now: MonoTime) {
        let stall_after = self.stall_after(number);
        let slot = self.agents.slot_mut(number);
        let silence = now.since(slot.last_beat);
        if slot.verdict.is_none_or(|verdict| verdict == Verdict::Unknown)
            || silence < stall_after
            || !self.observer_gaps.hides(slot.last_beat)
        {
            return;
        }
        self.call_unknown(number, Cause::ObserverBlind, now);
    }

    /// Calls an agent `unknown`, with the cause.
    fn call_unknown(&mut self, number: u32, cause: Cause, now: MonoTime) {
        let silence = self.silence(number, now);
        let slot = self.agents.slot_mut(number);
        let Some(before) = slot.verdict else { return };
        let after = before.next(Event::DeadlinePassedUnseen);
        if after == before {
            return;
        }
        slot.verdict = Some(after);
        self.recount(before, after);
        let change = TransitionDetails::new(Some(before), cause, now, silence);
        self.announce(number, change);
    }

    /// Calls an agent `stalled`, with the cause as far as it is known.
    fn mark_stalled(&mut self, number: u32, now: MonoTime, dossier: Option<Arc<Dossier>>) {
        let deadline = self.deadline(number);
        let may_have_lost = self.may_have_lost(number);
        let silence = self.silence(number, now);
        let forget_at = self.forget_at(number, Verdict::Stalled);
        let is_of_this_host = self.agents.slot(number).origin(&self.sources).address().is_none();
        let (slot, rest) = self.agents.both_mut(number);
        let Some(before) = slot.verdict else { return };
        let after = before.next(Event::DeadlinePassed);
        let seen = match dossier.as_deref() {
            // The process could beat and does not, as far as known.
            Some(dossier) if may_have_lost && !dossier.explanation.activity.is_blocked() => Cause::Lossy,
            Some(dossier) => cause_of(dossier.explanation.activity),
            None if may_have_lost => Cause::Lossy,
            None if is_of_this_host => Cause::Silent,
            None => Cause::Unreachable,
        };
        let change = TransitionDetails {
            detection_latency: Some(now.since(deadline)),
            dossier,
            ..TransitionDetails::new(
                Some(before),
                if slot.terminal { Cause::Panicked } else { seen },
                now,
                silence,
            )
        };
        slot.verdict = Some(after);
        slot.set_counter_due(false);
        slot.note_fallen(now);
        rest.stalls = rest.stalls.saturating_add(1);
        rest.inquiry = Inspection::None;
        self.wheel.arm(number, forget_at);
        self.recount(before, after);
        self.announce(number, change);
    }
}

/// The cause of the silence of a process with this activity.
fn cause_of(doing: ProcessActivity) -> Cause {
    match doing {
        ProcessActivity::DumpingCore => Cause::DumpingCore,
        ProcessActivity::Frozen => Cause::Frozen,
        ProcessActivity::Traced => Cause::Traced,
        ProcessActivity::Stopped => Cause::Stopped,
        ProcessActivity::Blocked => Cause::Blocked,
        ProcessActivity::Busy => Cause::Busy,
        ProcessActivity::Idle => Cause::Idle,
        // The end of a process is reported on its own.
        ProcessActivity::Gone | ProcessActivity::Unknown => Cause::Silent,
    }
}
