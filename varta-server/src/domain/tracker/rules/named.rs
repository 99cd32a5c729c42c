//! Agents that are known by their names alone: what is reported of them, by processes that may end at once.
//!
//! Such an agent has no process, so that nothing but reports and deadlines changes its verdict. It belongs to the
//! user whose process has made it: reports of others are refused as long as it is known.

use std::sync::Arc;
use std::time::Duration;

use varta_proto::control::ReportEvent;
use varta_proto::{Frame, Status};

use crate::base::time::MonoTime;
use crate::domain::beat::{Origin, RemoteEndpoint};
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::Lineage;
use crate::domain::report::Report;
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot, AskedTimeout, IndexKey, Inspection};
use crate::domain::tracker::agents::names::NameSource;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::Twin;
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};

/// The maximum number of named agents of one user: they have no processes, whose number would be limited.
pub(in crate::domain::tracker) const MAX_NAMED_PER_USER: usize = 10_000;

impl Tracker {
    /// Handles a report of a process of the user `uid`, and returns its outcome.
    pub(super) fn handle_report(&mut self, uid: u32, report: &Report, at: MonoTime) -> FrameOutcome {
        let known = self.named.find(report.name.as_str());
        if let Some(number) = known
            && self.agents.slot(number).origin(&self.sources) != (Origin::Named { uid })
        {
            return FrameOutcome::NameTaken;
        }
        if !self.may_speak_for(report.name.as_str(), uid) {
            return FrameOutcome::NameTaken;
        }
        if let Some(declared) = &report.declared {
            match self.declare(&report.name, uid, declared) {
                FrameOutcome::Accepted => {}
                refused => return refused,
            }
        }
        if report.event == ReportEvent::Declared {
            return FrameOutcome::Accepted;
        }
        let number = match known {
            Some(number) => {
                if let Some(limited) = self.limit(number, at) {
                    return limited;
                }
                number
            }
            None => match self.add_named(uid, report, at) {
                Ok(number) => number,
                Err(refused) => return refused,
            },
        };
        let is_new = known.is_none();
        let is_job = self.jobs.get(report.name.as_str()).is_some();
        match report.event {
            // A job that says nothing else has done its work.
            ReportEvent::Beat if is_job && report.stall_after.is_none() => {
                self.note_life(number, report, is_new, at);
                self.end_named(number, Event::SaidGoodbye, Cause::Goodbye { reason: None }, at);
            }
            ReportEvent::Started | ReportEvent::Beat => self.note_life(number, report, is_new, at),
            ReportEvent::Ended => {
                self.note_life(number, report, is_new, at);
                self.end_named(number, Event::SaidGoodbye, Cause::Goodbye { reason: None }, at);
            }
            ReportEvent::Failed { status } => {
                // One that is down stays down: that it failed again is no recovery in between.
                if self.agents.slot(number).verdict == Some(Verdict::Down) {
                    self.note_failed_again(number, status, at);
                } else {
                    self.note_life(number, report, is_new, at);
                    self.agents.slot_mut(number).payload = status.map_or(0, u32::from);
                    self.end_named(number, Event::Died, Cause::Failed { status }, at);
                }
            }
            // An event of a later version is no word of this one's.
            _ => {}
        }
        FrameOutcome::Accepted
    }

    /// Adds an agent whose first report has come, without a transition.
    fn add_named(&mut self, uid: u32, report: &Report, at: MonoTime) -> Result<u32, FrameOutcome> {
        let origin = Origin::Named { uid };
        if self.sources.agents(origin) >= MAX_NAMED_PER_USER {
            return Err(FrameOutcome::SourceLimit);
        }
        self.make_room(origin)?;
        if !self.total_rate.try_take(&mut self.total_usage, at) {
            return Err(FrameOutcome::RateLimitedGlobal);
        }
        let source = self.sources.find(origin).unwrap_or(SourceId::UNHEARD);
        let agents = &self.agents;
        let is_taken =
            |pid| agents.twins(IndexKey { source, pid, lane: RemoteEndpoint::default() }).next().is_some();
        let pid = self.named.take_number(is_taken);
        let key = IndexKey { source, pid, lane: RemoteEndpoint::default() };
        let slot = AgentHot { beats: 0, ..AgentHot::first_heard(key, &report_frame(pid), at) };
        let name = self.names.take(report.name.as_str());
        let rest = AgentCold { name_source: NameSource::Agent, ..AgentCold::new(name, None, Twin::FIRST) };
        let number = self.add(origin, slot, rest);
        let name = Arc::clone(self.names.get(name));
        self.named.add(&name, number);
        self.apply_rules(number);
        Ok(number)
    }

    /// Records a report as a sign of life, and applies the deadline that follows from it.
    fn note_life(&mut self, number: u32, report: &Report, is_new: bool, at: MonoTime) {
        let is_overlap = report.event == ReportEvent::Started && self.is_running(number);
        let slot = self.agents.slot_mut(number);
        let silence = at.since(slot.last_beat);
        slot.accept(&report_frame(slot.key.pid), at.max(slot.last_beat));
        let Some(before) = slot.verdict else { return };
        if report.event == ReportEvent::Started {
            slot.set_held_by_job(false);
        }
        let after = if slot.is_held_by_job() { before } else { before.next(Event::Beat(Status::Ok)) };
        slot.verdict = Some(after);
        self.recount(before, after);
        self.set_deadline(number, report, is_new || after != before, at);
        if is_new {
            let from = self.mark_seen(number);
            self.announce(number, TransitionDetails { from, ..TransitionDetails::of_first_beat(at) });
        } else if is_overlap {
            // The end of the run before was not reported: it is still under way, as far as is known.
            let silence = if after == before { silence } else { silence + self.end_absence(number) };
            self.announce(number, TransitionDetails::new(Some(before), Cause::Overlapped, at, silence));
        } else if after != before {
            let silence = silence + self.end_absence(number);
            self.agents.rest_mut(number).inquiry = Inspection::None;
            self.announce(number, TransitionDetails::new(Some(before), Cause::Recovered, at, silence));
        }
    }

    /// Applies the deadline that follows from a report; `begins` when the agent was not up before it.
    ///
    /// Whoever begins something knows that an end is to be reported, so that silence means nothing unless a time is
    /// given; a beat is to be followed by another. A beat of what was begun leaves its deadline as it is.
    fn set_deadline(&mut self, number: u32, report: &Report, begins: bool, at: MonoTime) {
        let is_beat = report.event == ReportEvent::Beat;
        if begins || !is_beat || report.stall_after.is_some() {
            let origin = self.agents.slot(number).origin(&self.sources);
            let asked = report.stall_after.map(|asked| self.granted_to(origin, asked));
            let (slot, rest) = self.agents.both_mut(number);
            let extra = rest.extra.get_or_insert_default();
            extra.asked = asked.map(AskedTimeout::Requested);
            let is_unawaited = !is_beat && asked.is_none() && extra.ruled.is_none();
            if extra.is_empty() {
                rest.extra = None;
            }
            slot.set_unawaited(is_unawaited);
            self.forget_if_promised(number);
            self.note(number);
        }
        self.wheel.arm(number, self.first_check(number).max(at));
    }

    /// Records the end of what an agent stands for.
    fn end_named(&mut self, number: u32, event: Event, cause: Cause, at: MonoTime) {
        let Some(before) = self.agents.slot(number).verdict else { return };
        let after = before.next(event);
        let change = TransitionDetails::new(Some(before), cause, at, Duration::ZERO);
        self.mark_departed(number, after, Lineage::default(), change);
    }

    /// Records one more failure of an agent that is down.
    fn note_failed_again(&mut self, number: u32, status: Option<u8>, at: MonoTime) {
        let slot = self.agents.slot_mut(number);
        let silence = at.since(slot.last_beat);
        slot.accept(&report_frame(slot.key.pid), at.max(slot.last_beat));
        slot.payload = status.map_or(0, u32::from);
        slot.note_fallen(at);
        let silence = silence + self.end_absence(number);
        self.wheel.arm(number, self.forget_at(number, Verdict::Down));
        let change = TransitionDetails::new(Some(Verdict::Down), Cause::Failed { status }, at, silence);
        self.announce(number, change);
    }
}

/// The frame that a report stands for: it has a place in no session.
const fn report_frame(pid: u32) -> Frame {
    Frame { status: Status::Ok, pid, timestamp: 0, nonce: 1, payload: 0 }
}
