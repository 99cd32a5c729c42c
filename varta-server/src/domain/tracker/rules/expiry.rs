//! When a deadline comes up, a process ends or was looked at, or somebody takes leave: what follows from it.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Transport;
use crate::domain::process::{Death, Doing, Dossier, ProcessId};
use crate::domain::tracker::agents::agent::{AgentKey, Inquiry, PageUse, Rest};
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::request::{Depth, Request};
use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::state::{Change, Tracker};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};

/// How long an agent is remembered that took its leave.
const GONE_KEPT: Duration = Duration::from_secs(60);

impl Tracker {
    /// Takes note that a process ended, when every beat that it sent before has been handed in.
    ///
    /// Nothing changes for a process that no agent is.
    pub fn handle_death(&mut self, process: ProcessId, death: Death, noticed_at: MonoTime, now: MonoTime) {
        if let Some(number) = self.find_process(process) {
            self.note_death(number, death, noticed_at, now);
        }
    }

    /// Takes note that there is no process with this pid, when every beat that has arrived has been handed in.
    ///
    /// Nothing changes for an agent whose process is known: of its end one is told otherwise.
    pub fn handle_absence(&mut self, pid: u32, now: MonoTime) {
        let agent = self.agents.find(AgentKey::local(pid));
        if let Some(number) = agent.filter(|number| self.agents.rest(*number).start_time.is_none()) {
            self.note_death(number, Death::Unknown, now, now);
        }
    }

    pub(in crate::domain::tracker) fn note_death(
        &mut self,
        number: u32,
        death: Death,
        noticed_at: MonoTime,
        now: MonoTime,
    ) {
        self.agents.rest_mut(number).is_dead = true;
        let slot = self.agents.slot(number);
        let Some(before) = slot.verdict else { return };
        let (event, cause) = match death {
            _ if slot.terminal => (Event::Died, Cause::Panicked),
            Death::Exited { code: 0 } => (Event::ExitedWell, Cause::Exited { code: Some(0) }),
            Death::Exited { code } => (Event::Died, Cause::Exited { code: Some(code) }),
            Death::Killed { signal, .. } => (Event::Died, Cause::Killed { signal }),
            Death::Unknown => (Event::Died, Cause::Exited { code: None }),
        };
        let after = before.next(event);
        if after == before {
            return;
        }
        let change = Change {
            detection_latency: Some(now.since(noticed_at)),
            ..Change::new(Some(before), cause, now, self.silence(number, now))
        };
        self.depart(number, after, change);
    }

    /// Takes note that the page of a process has been read that [`Tracker::poll_unread`] named, and what was in it handed
    /// in.
    pub fn handle_read(&mut self, pid: u32, now: MonoTime) {
        let agent = self.agents.find(AgentKey::local(pid));
        if let Some(number) = agent.filter(|number| self.agents.slot(*number).page() == PageUse::Read) {
            self.look_at(number, now);
        }
    }

    /// How long the process of this host with this pid may be silent, if it is an agent.
    #[must_use]
    pub fn stall_after_of_process(&self, pid: u32) -> Option<Duration> {
        self.agents.find(AgentKey::local(pid)).map(|number| self.stall_after(number))
    }

    /// Takes what came of a [`Request::Look`]; `None` when nobody could look.
    ///
    /// Nothing changes if the agent has beaten since, or has been judged without.
    pub fn handle_evidence(&mut self, process: ProcessId, seen: Option<Arc<Dossier>>, now: MonoTime) {
        let Some(number) = self.find_process(process) else { return };
        let awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        let looking = matches!(self.agents.rest(number).inquiry, Inquiry::Looking | Inquiry::LookingAgain);
        if awaited && looking && self.deadline(number) <= now {
            self.conclude(number, now, seen);
        }
    }

    /// Takes a goodbye: the agent's silence from now on is meant, unless it has another handle that still beats.
    pub(in crate::domain::tracker) fn handle_goodbye(
        &mut self,
        number: u32,
        last: Session,
        cause: Cause,
        at: MonoTime,
    ) {
        let stall_after = self.stall_after(number);
        let (slot, rest) = self.agents.both_mut(number);
        let Some(before) = slot.verdict else { return };
        if !slot.take_leave(rest, last, at, stall_after) {
            return;
        }
        let after = before.next(Event::SaidGoodbye);
        if after == before {
            return;
        }
        let silence = self.silence(number, at);
        let change = Change::new(Some(before), cause, at, silence);
        self.depart(number, after, change);
    }

    /// Looks at an agent because the wheel says so.
    pub(in crate::domain::tracker) fn look_at(&mut self, number: u32, now: MonoTime) {
        match self.agents.slot(number).verdict {
            Some(Verdict::Up(_) | Verdict::Unknown | Verdict::Expected) => self.judge(number, now),
            Some(verdict @ (Verdict::Stalled | Verdict::Down | Verdict::Gone)) => {
                let kept = match verdict {
                    Verdict::Gone => GONE_KEPT.min(self.policy.forget_after),
                    Verdict::Stalled
                    | Verdict::Down
                    | Verdict::Up(_)
                    | Verdict::Unknown
                    | Verdict::Expected => self.policy.forget_after,
                };
                let forget_at = self.forget_at(number, kept);
                if now >= forget_at {
                    self.forget(number);
                } else {
                    self.wheel.arm(number, forget_at);
                }
            }
            None => {}
        }
    }

    /// Judges the silence of an agent that was not silent for too long so far.
    fn judge(&mut self, number: u32, now: MonoTime) {
        let deadline = self.deadline(number);
        let process = self.process(number);
        if now < deadline {
            self.note_unseen(number, now);
            let half = self.first_look(number);
            let slot = self.agents.slot_mut(number);
            if slot.has_page() {
                slot.set_page(PageUse::Unread);
            }
            let rest = self.agents.rest_mut(number);
            if now < half {
                rest.inquiry = Inquiry::None;
                self.wheel.arm(number, half);
                return;
            }
            match (rest.inquiry, process) {
                (Inquiry::None, Some(process)) => {
                    rest.inquiry = Inquiry::Glanced;
                    self.ask_for_look(process, Depth::Glance, now);
                }
                // What is seen before the deadline says nothing of the moment at which that will have passed.
                (Inquiry::Looking, _) => rest.inquiry = Inquiry::Glanced,
                (Inquiry::LookingAgain, _) => rest.inquiry = Inquiry::Doubted,
                (Inquiry::None | Inquiry::Glanced | Inquiry::Doubted, _) => {}
            }
            self.wheel.arm(number, deadline);
            return;
        }
        if !self.has_read(number) {
            self.wheel.arm(number, now);
            return;
        }
        // The wheel may be early, with this as with everything.
        let (looking, waits_until) = match self.agents.rest(number).inquiry {
            Inquiry::None | Inquiry::Glanced => (Inquiry::Looking, None),
            Inquiry::Doubted => (Inquiry::LookingAgain, Some(deadline + self.stall_after(number))),
            at @ (Inquiry::Looking | Inquiry::LookingAgain) => match self.looks.waits_until(number, now) {
                Some(until) => (at, Some(until)),
                None => return self.conclude(number, now, None),
            },
        };
        if let Some(until) = waits_until.filter(|until| now < *until) {
            return self.wheel.arm(number, until);
        }
        match process {
            Some(process) if self.ask_for_look(process, Depth::Close, now) => {
                self.agents.rest_mut(number).inquiry = looking;
                let until = self.looks.wait_for(number, now);
                self.wheel.arm(number, until);
            }
            Some(_) | None => self.conclude(number, now, None),
        }
    }

    /// Whether what an agent has written to its page is known; if not, asks for it. Who was asked and says nothing has
    /// nothing to say.
    fn has_read(&mut self, number: u32) -> bool {
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

    /// Says what is to be said of a silence that is over its deadline, with what was seen of the process. Where that does
    /// not explain it, and beats may have been lost or very many are silent at once, the agent is given a second chance
    /// first.
    fn conclude(&mut self, number: u32, now: MonoTime, seen: Option<Arc<Dossier>>) {
        let is_held_up = seen.as_ref().is_some_and(|dossier| dossier.explanation.doing.is_held_up());
        let had_a_chance =
            matches!(self.agents.rest(number).inquiry, Inquiry::Doubted | Inquiry::LookingAgain);
        let doubt = if is_held_up || had_a_chance { None } else { self.doubt(number, now) };
        if let Some(doubt) = doubt {
            self.agents.rest_mut(number).inquiry = Inquiry::Doubted;
            let until = self.deadline(number) + self.stall_after(number);
            self.wheel.arm(number, until);
            let source = self.agents.slot(number).key.source;
            self.incidents.hold_open(source, Verdict::Stalled, now, until);
            self.call_unknown(number, doubt, now);
        } else {
            self.call_stalled(number, now, seen);
        }
    }

    /// Why a silence may not be the agent's own.
    fn doubt(&mut self, number: u32, now: MonoTime) -> Option<Cause> {
        let transport = self.agents.slot(number).transport(&self.sources);
        if self.may_have_lost(number) {
            Some(Cause::Lossy)
        } else if self.very_many_are_silent(transport, now) {
            Some(Cause::ObserverBlind)
        } else {
            None
        }
    }

    /// Whether beats of a silent agent may have been lost on the way.
    ///
    /// Where very many beat through one short queue it is full now and then all the time, so that by itself excuses only
    /// who has lost beats before.
    fn may_have_lost(&self, number: u32) -> bool {
        let slot = self.agents.slot(number);
        let transport = self.sources.origin(slot.key.source).transport();
        let lost_meanwhile = self.lost_at[transport.index()].is_some_and(|lost_at| lost_at > slot.last_beat);
        lost_meanwhile && (transport != Transport::Unix || self.agents.rest(number).lost > 0)
    }

    /// Asks for a look at a process, if there was not too much to look at already.
    fn ask_for_look(&mut self, process: ProcessId, depth: Depth, now: MonoTime) -> bool {
        let may = self.looks.allow(now);
        if may {
            self.requests.push_back(Request::Look { process, depth });
        }
        may
    }

    /// Says so if the agent would be late by now, had the server been able to see.
    fn note_unseen(&mut self, number: u32, now: MonoTime) {
        let stall_after = self.stall_after(number);
        let slot = self.agents.slot_mut(number);
        let silence = now.since(slot.last_beat);
        if slot.verdict.is_none_or(|verdict| verdict == Verdict::Unknown)
            || silence < stall_after
            || !self.blindness.hides(slot.last_beat)
        {
            return;
        }
        self.call_unknown(number, Cause::ObserverBlind, now);
    }

    /// Says that nothing can be said of a silence yet, and why.
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
        let change = Change::new(Some(before), cause, now, silence);
        self.announce(number, change);
    }

    /// Says that an agent is stalled, and why as far as that is known.
    fn call_stalled(&mut self, number: u32, now: MonoTime, dossier: Option<Arc<Dossier>>) {
        let deadline = self.deadline(number);
        let may_have_lost = self.may_have_lost(number);
        let silence = self.silence(number, now);
        let forget_at = self.forget_at(number, self.policy.forget_after);
        let (slot, rest) = self.agents.both_mut(number);
        let Some(before) = slot.verdict else { return };
        let after = before.next(Event::DeadlinePassed);
        let seen = match dossier.as_deref() {
            // A process that could beat and does not, as far as we got to know.
            Some(dossier) if may_have_lost && !dossier.explanation.doing.is_held_up() => Cause::Lossy,
            Some(dossier) => cause_of(dossier.explanation.doing),
            None if may_have_lost => Cause::Lossy,
            None if slot.key.source == SourceId::LOCAL => Cause::Silent,
            None => Cause::Unreachable,
        };
        let change = Change {
            detection_latency: Some(now.since(deadline)),
            dossier,
            ..Change::new(Some(before), if slot.terminal { Cause::Panicked } else { seen }, now, silence)
        };
        slot.verdict = Some(after);
        slot.note_stalled(now);
        rest.stalls = rest.stalls.saturating_add(1);
        rest.inquiry = Inquiry::None;
        self.wheel.arm(number, forget_at);
        self.recount(before, after);
        self.announce(number, change);
    }

    /// Writes down that an agent is down or gone.
    fn depart(&mut self, number: u32, after: Verdict, change: Change) {
        let slot = self.agents.slot_mut(number);
        let Some(before) = slot.verdict.replace(after) else { return };
        let kept = if after == Verdict::Gone { GONE_KEPT } else { self.policy.forget_after };
        self.wheel.arm(number, self.forget_at(number, kept));
        self.recount(before, after);
        self.make_way(number);
        self.announce(number, change);
    }

    /// Remembers that another may take the place of an agent that is down or gone.
    pub(in crate::domain::tracker) fn make_way(&mut self, number: u32) {
        self.note_departed(number);
        let Rest { name, name_source, .. } = *self.agents.rest(number);
        if name_source.is_series() {
            self.names.note_departed(name, number);
        }
    }

    /// The local process that an agent is, as far as it is known and lives.
    pub(in crate::domain::tracker) fn process(&self, number: u32) -> Option<ProcessId> {
        self.incarnation(number).filter(|_| !self.agents.rest(number).is_dead)
    }

    /// The local process that an agent is or was, as far as it is known.
    pub(in crate::domain::tracker) fn incarnation(&self, number: u32) -> Option<ProcessId> {
        let AgentKey { source, pid, .. } = self.agents.slot(number).key;
        let start_time = self.agents.rest(number).start_time.filter(|_| source == SourceId::LOCAL)?;
        Some(ProcessId { pid, start_time })
    }

    /// The agent that a living local process is.
    fn find_process(&self, process: ProcessId) -> Option<u32> {
        let number = self.agents.find(AgentKey::local(process.pid))?;
        (self.process(number) == Some(process)).then_some(number)
    }
}

/// Why a process is silent that does this.
fn cause_of(doing: Doing) -> Cause {
    match doing {
        Doing::Frozen => Cause::Frozen,
        Doing::Stopped => Cause::Stopped,
        Doing::Blocked => Cause::Blocked,
        Doing::Busy => Cause::Busy,
        Doing::Idle => Cause::Idle,
        // That it has ended is told by its own.
        Doing::Gone | Doing::Unknown => Cause::Silent,
    }
}
