//! The effects of the end of a process on its agent.

use std::sync::Arc;

use crate::base::time::MonoTime;
use crate::domain::process::{ExitStatus, Lineage, ProcessId};
use crate::domain::tracker::agents::agent::{AgentCold, IndexKey};
use crate::domain::tracker::agents::names::Departed;
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};

/// The end of an agent's process.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) death: ExitStatus,
    pub(super) lineage: Lineage,
    /// When it became known.
    pub(super) noticed_at: MonoTime,
    /// Whether the process was there long enough to be watched.
    pub(super) was_watched: bool,
    /// The cgroup that was out of memory, if that was the reason.
    pub(super) oom_cgroup: Option<Arc<str>>,
}

impl Ending {
    /// The end of a process that was watched, of which nothing else is known.
    pub(super) fn of(death: ExitStatus) -> Self {
        Ending {
            death,
            lineage: Lineage::default(),
            noticed_at: MonoTime::START,
            was_watched: true,
            oom_cgroup: None,
        }
    }
}

impl Tracker {
    /// Handles the end of a process, when every beat that it sent before has been handled. May be called
    /// again when more of the end is known.
    ///
    /// Nothing changes if the process is no agent.
    pub fn handle_exit(
        &mut self,
        process: ProcessId,
        death: ExitStatus,
        lineage: Lineage,
        noticed_at: MonoTime,
        now: MonoTime,
    ) {
        if let Some(number) = self.find_incarnation(process) {
            self.note_death(number, Ending { lineage, noticed_at, ..Ending::of(death) }, None, now);
        }
    }

    /// The same of a process that was watched by its pid alone, because `/proc` hides it.
    ///
    /// Nothing changes if the agent with this pid is another process, which could be identified.
    pub fn handle_hidden_exit(&mut self, pid: u32, death: ExitStatus, noticed_at: MonoTime, now: MonoTime) {
        let number = self.agents.find(IndexKey::local(pid));
        if let Some(number) = number.filter(|number| self.incarnation(*number).is_none()) {
            self.note_death(number, Ending { noticed_at, ..Ending::of(death) }, None, now);
        }
    }

    /// Handles the end of a process that the kernel killed for want of memory in this cgroup, when every beat
    /// that it sent before has been handled.
    ///
    /// Nothing changes if the process is no agent.
    pub fn handle_oom_kill(
        &mut self,
        process: ProcessId,
        cgroup: Arc<str>,
        lineage: Lineage,
        noticed_at: MonoTime,
        now: MonoTime,
    ) {
        if let Some(number) = self.find_process(process) {
            let death = ExitStatus::Killed { signal: 9, core_dumped: false };
            let oom_cgroup = Some(cgroup);
            let ending = Ending { lineage, noticed_at, oom_cgroup, ..Ending::of(death) };
            self.note_death(number, ending, None, now);
        }
    }

    /// Handles the end of a process that could not be watched, or not be identified, when every beat that has
    /// arrived has been handled: it had this pid, was this process if that is known, and ended so.
    ///
    /// An end of which nothing is known is no alarm: the process was there too short a time to be looked at.
    /// Nothing changes for an agent that is another process, or whose process has been identified since: a
    /// watch reports the end of that.
    pub fn handle_absence(&mut self, pid: u32, process: Option<ProcessId>, death: ExitStatus, now: MonoTime) {
        let is_it = |number: &u32| match (self.incarnation(*number), process) {
            (Some(own), Some(process)) => own.may_be(process),
            (own, process) => own.is_none() && process.is_none(),
        };
        if let Some(number) = self.agents.find(IndexKey::local(pid)).filter(is_it) {
            let ending = Ending { noticed_at: now, was_watched: false, ..Ending::of(death) };
            self.note_death(number, ending, None, now);
        }
    }

    /// Records the end of an agent's process, and the agent that takes its place.
    pub(super) fn note_death(&mut self, number: u32, ending: Ending, successor: Option<u32>, now: MonoTime) {
        let Ending { death, lineage, noticed_at, was_watched, oom_cgroup } = ending;
        self.agents.rest_mut(number).is_dead = true;
        self.note_presence(number, now);
        let slot = self.agents.slot(number);
        let Some(before) = slot.verdict else { return };
        let has_panicked = slot.terminal;
        let cause = match death {
            _ if has_panicked => Cause::Panicked,
            ExitStatus::Killed { .. } if oom_cgroup.is_some() => Cause::OomKilled,
            ExitStatus::Exited { code } => Cause::Exited { code: Some(code) },
            ExitStatus::Killed { signal, .. } => Cause::Killed { signal },
            ExitStatus::Unknown => Cause::Exited { code: None },
        };
        let is_ordinary = !has_panicked
            && match death {
                ExitStatus::Unknown => !was_watched,
                ExitStatus::Exited { .. } | ExitStatus::Killed { .. } => self.is_ordinary_end(number, death),
            };
        let event = if is_ordinary || successor.is_some() { Event::EndedWell } else { Event::Died };
        let after = before.next(event);
        if after == before {
            return;
        }
        let change = TransitionDetails {
            detection_latency: Some(now.since(noticed_at)),
            oom_cgroup,
            successor: successor.map(|successor| self.id(successor)),
            ..TransitionDetails::new(Some(before), cause, now, self.silence(number, now))
        };
        self.mark_departed(number, after, lineage, change);
        if let Some(successor) = successor {
            self.continue_series(number, successor);
        }
    }

    /// Whether such an end of an agent's process is ordinary by the rules.
    fn is_ordinary_end(&self, number: u32, death: ExitStatus) -> bool {
        let name = self.names.get(self.agents.rest(number).name);
        self.policy.rules.success_exit_for(name).contains(death)
    }

    /// Records that an agent is down or gone.
    pub(super) fn mark_departed(
        &mut self,
        number: u32,
        after: Verdict,
        lineage: Lineage,
        change: TransitionDetails,
    ) {
        let slot = self.agents.slot_mut(number);
        let Some(before) = slot.verdict.replace(after) else { return };
        slot.set_held_by_job(false);
        slot.set_counter_due(false);
        slot.note_fallen(change.at);
        self.wheel.arm(number, self.forget_at(number, after));
        self.recount(before, after);
        // One that was down before, and turns out to have ended well, is in the lists already.
        if before != Verdict::Down {
            self.evict_one(number, lineage);
        }
        self.announce(number, change);
    }

    /// Records that another agent may take the place of one that is down or gone.
    pub(super) fn evict_one(&mut self, number: u32, lineage: Lineage) {
        self.note_departed(number);
        let AgentCold { name, name_source, .. } = *self.agents.rest(number);
        if name_source.is_series() || lineage.command != 0 {
            self.names.note_departed(name, Departed { number, lineage });
        }
    }

    /// The agent that is this living local process.
    pub(super) fn find_process(&self, process: ProcessId) -> Option<u32> {
        self.find_incarnation(process).filter(|number| !self.agents.rest(*number).is_dead)
    }

    /// The agent that is a living local process with this pid, and could not be identified.
    pub(super) fn find_hidden(&self, pid: u32) -> Option<u32> {
        let number = self.agents.find(IndexKey::local(pid))?;
        let is_it = self.incarnation(number).is_none() && !self.agents.rest(number).is_dead;
        is_it.then_some(number)
    }

    /// The agent that is or was this local process.
    fn find_incarnation(&self, process: ProcessId) -> Option<u32> {
        let number = self.agents.find(IndexKey::local(process.pid))?;
        self.incarnation(number).is_some_and(|own| own.may_be(process)).then_some(number)
    }
}
