//! Jobs: which transitions of agents are runs of a job, and what time makes of a job.
//!
//! A run begins when an agent of the job's name comes up, and ends when it is gone or down, which is told by the
//! agent's own transitions. What the job adds are a run that has not begun, one that takes too long, and one that
//! begins while another is under way.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::{MonoTime, WallTime};
use crate::domain::beat::Origin;
use crate::domain::job::{DeclaredJob, Jobs};
use crate::domain::outcome::FrameOutcome;
use crate::domain::tracker::agents::job_state::{JobEvent, JobState, OverlapAlarm, RunKey};
use crate::domain::tracker::agents::jobs::{DeclareFault, JobSnapshot, MAX_DECLARED};
use crate::domain::tracker::agents::snapshot::{ForgetReason, Forgotten, RegistryChange};
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::{AgentId, Transition};
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};
use varta_proto::control::AgentName;

impl Tracker {
    /// The maximum number of jobs.
    pub(crate) const MAX_JOBS: usize = Jobs::MAX_JOBS + MAX_DECLARED;

    /// Whether there are jobs, so that the tracker is to be told the time of the wall clock.
    #[must_use]
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Takes in what the wall clock says at `now`. Called before [`Tracker::handle_timeout`] of the same time while
    /// there are jobs.
    pub(crate) fn handle_wall_clock(&mut self, wall: WallTime, now: MonoTime) {
        self.jobs.set_clock(now, wall);
    }

    /// Applies what time has made of the jobs by `now`.
    pub(in crate::domain::tracker) fn check_jobs(&mut self, now: MonoTime) {
        for (name, event) in self.jobs.check(now) {
            match event {
                JobEvent::Late { since } => {
                    let grace = self.jobs.get(&name).map_or(Duration::ZERO, |job| job.job.grace);
                    self.transitions.push_back(Transition::of_late(&name, since, grace, now));
                }
                JobEvent::Overran { key, taken } => self.hold_run(&name, key, Cause::Overran, taken, now),
                JobEvent::Overlapped { key, taken } => {
                    self.hold_run(&name, key, Cause::Overlapped, taken, now);
                }
            }
            self.note_job(&name);
        }
    }

    /// The names of the jobs that are late and of no expected agent that is missing.
    pub(in crate::domain::tracker) fn late_jobs(&self) -> impl Iterator<Item = &Arc<str>> {
        self.jobs.late().map(|job| &job.name).filter(|name| !self.expected.is_missing(name))
    }

    /// The late ones as they were told.
    pub(in crate::domain::tracker) fn late_alarms(
        &self,
        now: MonoTime,
    ) -> impl Iterator<Item = Transition> + '_ {
        let late = self.jobs.late().filter(|late| !self.expected.is_missing(&late.name));
        late.map(move |late| {
            let wall = self.jobs.wall_at(now).unwrap_or_default();
            let since = late.state.late_for.map_or(Duration::ZERO, |due| wall.since(due));
            Transition::of_late(&late.name, since, late.job.grace, now)
        })
    }

    /// What the jobs and their runs are.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobView<'_>> + Clone {
        self.jobs.iter().map(|job| JobView { name: &job.name, state: &job.state })
    }

    /// What outlives the server of the jobs.
    pub(crate) fn job_snapshots(&self) -> Vec<JobSnapshot> {
        self.jobs.iter().map(|job| job.snapshot()).collect()
    }

    /// Continues what an earlier server knew of jobs, after its agents were restored. `unseen` is the time in which
    /// nobody watched. Runs whose agents are not known are over, however they ended.
    pub(crate) fn restore_jobs(&mut self, snapshots: Vec<JobSnapshot>, unseen: Option<(WallTime, WallTime)>) {
        let zone = self.policy.time_zone.clone();
        self.jobs.restore(snapshots, unseen, &zone);
        let runs: Vec<_> = self
            .jobs
            .iter()
            .flat_map(|job| {
                job.state.running.iter().map(|run| {
                    let is_held = run.has_overrun || run.overlap == OverlapAlarm::Told;
                    (Arc::clone(&job.name), run.key, is_held)
                })
            })
            .collect();
        for (name, key, is_held) in runs {
            match self.find_run(&name, key) {
                Some(number) if is_held => {
                    let slot = self.agents.slot_mut(number);
                    slot.set_held_by_job(slot.verdict == Some(Verdict::Stalled));
                }
                Some(_) => {}
                None => {
                    if let Some(job) = self.jobs.change(&name) {
                        job.state.drop_run(key);
                    }
                }
            }
        }
    }

    /// The agent that is a run, while its name is that of the job.
    fn find_run(&self, name: &Arc<str>, key: RunKey) -> Option<u32> {
        let RunKey { origin, pid, twin } = key;
        let number = self.find(&AgentId { name: Arc::clone(name), origin, pid, twin })?;
        (self.names.get(self.agents.rest(number).name) == name).then_some(number)
    }

    /// Whether an agent is a run that is under way.
    pub(super) fn is_running(&self, number: u32) -> bool {
        let job = self.jobs.get(self.names.get(self.agents.rest(number).name));
        job.is_some_and(|job| job.state.has_run(RunKey::of(&self.id(number))))
    }

    /// Whether a user may speak for a job of this name, if there is one.
    pub(super) fn may_speak_for(&self, name: &str, uid: u32) -> bool {
        self.jobs.get(name).is_none_or(|job| job.job.uid.is_none_or(|owner| owner == uid))
    }

    /// Takes a job that a process of a user declares, who may speak for it.
    pub(super) fn declare(&mut self, name: &AgentName, uid: u32, declared: &DeclaredJob) -> FrameOutcome {
        let zone = self.policy.time_zone.clone();
        match self.jobs.declare(name, uid, declared, &zone) {
            Ok(true) => {
                self.note_job(&Arc::from(name.as_str()));
                FrameOutcome::Accepted
            }
            Ok(false) => FrameOutcome::Accepted,
            Err(DeclareFault::Senseless) => FrameOutcome::ScheduleRefused,
            Err(DeclareFault::TooMany) => FrameOutcome::SourceLimit,
        }
    }

    /// Ends the wait for a job that is late. Whether it was.
    pub(super) fn forget_job(&mut self, name: &Arc<str>) -> bool {
        let was_late = self.jobs.forget(name);
        if was_late {
            let agent = AgentId::expected(name);
            let forgotten = Forgotten { agent, reason: ForgetReason::Requested };
            self.registry_changes.push_back(RegistryChange::Forgotten(forgotten));
            self.note_job(name);
        }
        was_late
    }

    /// Has the state of a job persisted.
    fn note_job(&mut self, name: &Arc<str>) {
        if self.is_persisted {
            self.registry_changes.push_back(match self.jobs.snapshot(name) {
                Some(job) => RegistryChange::Job(Box::new(job)),
                None => RegistryChange::JobForgotten(Arc::clone(name)),
            });
        }
    }

    /// Takes a transition of an agent, which may be the begin or the end of a run. The cause that it has by that.
    pub(in crate::domain::tracker) fn note_run(
        &mut self,
        number: u32,
        to: Verdict,
        change: &TransitionDetails,
    ) -> Cause {
        let cause = change.cause;
        let name = Arc::clone(self.names.get(self.agents.rest(number).name));
        let Some(owner) = self.jobs.get(&name).map(|job| job.job.uid) else { return cause };
        if owner.is_some_and(|owner| self.uid_of(number) != Some(owner)) {
            return cause;
        }
        let key = RunKey::of(&self.id(number));
        let Some(wall) = self.jobs.wall_at(change.at) else { return cause };
        let Some(job) = self.jobs.change(&name) else { return cause };
        let (state, job) = (&mut job.state, &job.job);
        if let Some(predecessor) = &change.predecessor {
            state.drop_run(RunKey::of(predecessor));
        }
        let is_same_run = state.has_run(key) && cause != Cause::Restarted;
        let mut told = cause;
        match to {
            Verdict::Up(_) if !is_same_run || cause == Cause::Overlapped => {
                state.drop_run_if(key, cause == Cause::Restarted);
                if state.begin(job, key, wall) {
                    told = Cause::Overlapped;
                }
            }
            Verdict::Gone => state.end(job, key, true, wall),
            Verdict::Down => state.end(job, key, false, wall),
            Verdict::Up(_) | Verdict::Stalled | Verdict::Unknown | Verdict::Expected => return cause,
        }
        self.jobs.recount();
        self.note_job(&name);
        told
    }

    /// Takes an agent that has got another name while it is up: under the new one it may be a run.
    pub(super) fn note_renamed(&mut self, number: u32, old: &Arc<str>, at: MonoTime) {
        let key = RunKey::of(&self.id(number));
        if let Some(job) = self.jobs.change(old)
            && job.state.drop_run(key)
        {
            self.note_job(old);
        }
        if let Some(verdict @ Verdict::Up(_)) = self.agents.slot(number).verdict {
            let change = TransitionDetails::of_first_beat(at);
            self.note_run(number, verdict, &change);
        }
    }

    /// The user whose process an agent is, as far as that matters to a job.
    fn uid_of(&self, number: u32) -> Option<u32> {
        match self.agents.slot(number).origin(&self.sources) {
            Origin::Named { uid } => Some(uid),
            Origin::Local | Origin::Notify | Origin::Udp(_) | Origin::SecureUdp(_) => {
                self.agents.rest(number).extra.as_ref()?.uid
            }
        }
    }

    /// The cause for which an agent is stalled whose run no beat makes well.
    pub(in crate::domain::tracker) fn held_cause(&self, number: u32) -> Cause {
        let name = self.names.get(self.agents.rest(number).name);
        let key = RunKey::of(&self.id(number));
        let run = self.jobs.get(name).and_then(|job| job.state.running.iter().find(|run| run.key == key));
        if run.is_some_and(|run| !run.has_overrun) { Cause::Overlapped } else { Cause::Overran }
    }

    /// Calls an agent stalled whose run has taken so long and is not as it may be.
    fn hold_run(&mut self, name: &Arc<str>, key: RunKey, cause: Cause, taken: Duration, now: MonoTime) {
        let Some(number) = self.find_run(name, key) else {
            if let Some(job) = self.jobs.change(name) {
                job.state.drop_run(key);
            }
            return;
        };
        let slot = self.agents.slot_mut(number);
        let Some(before) = slot.verdict else { return };
        let after = before.next(Event::DeadlinePassed);
        if after != Verdict::Stalled {
            return;
        }
        slot.set_held_by_job(true);
        slot.verdict = Some(after);
        slot.note_fallen(now);
        let rest = self.agents.rest_mut(number);
        rest.stalls = rest.stalls.saturating_add(1);
        self.recount(before, after);
        self.wheel.arm(number, self.forget_at(number, after));
        self.announce(number, TransitionDetails::new(Some(before), cause, now, taken));
    }
}

/// A job as a scrape reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobView<'a> {
    /// Its name.
    pub(crate) name: &'a Arc<str>,
    /// What is known of it.
    pub(crate) state: &'a JobState,
}
