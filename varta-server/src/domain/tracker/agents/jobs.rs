//! The jobs: those of the configuration and those that were declared, each with its state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::control::AgentName;

use crate::base::time::{MonoTime, WallTime};
use crate::base::time_zone::TimeZone;
use crate::domain::job::{DeclaredJob, Job, Jobs};
use crate::domain::tracker::agents::job_state::{JobEvent, JobState};

/// The maximum number of declared jobs, and of those that one user may declare.
pub(in crate::domain::tracker) const MAX_DECLARED: usize = 1_024;
pub(in crate::domain::tracker) const MAX_DECLARED_PER_USER: usize = 256;
/// The longest time between two looks at the clock, which may have been set.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A difference between the two clocks from which on the wall clock was set.
const STEP: Duration = Duration::from_secs(2);

/// A job and its state.
#[derive(Clone, Debug)]
pub(in crate::domain::tracker) struct TrackedJob {
    pub(in crate::domain::tracker) name: Arc<str>,
    pub(in crate::domain::tracker) job: Job,
    /// As it was declared; `None` for one of the configuration.
    declared: Option<DeclaredJob>,
    pub(in crate::domain::tracker) state: JobState,
}

/// What outlives the server of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// The schedule by which it awaits what it awaits.
    schedule: Arc<str>,
    /// By whom it was declared, and how; `None` for one of the configuration.
    declared: Option<(u32, DeclaredJob)>,
    state: JobState,
}

/// Why a declared job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::domain::tracker) enum DeclareFault {
    /// It makes no sense.
    Senseless,
    /// There are too many.
    TooMany,
}

/// All jobs, and the wall clock as it was last seen.
#[derive(Debug, Default)]
pub(in crate::domain::tracker) struct JobTable {
    jobs: Vec<TrackedJob>,
    places: HashMap<Arc<str>, usize>,
    /// One moment by both clocks.
    clock: Option<(MonoTime, WallTime)>,
    /// When there may be something to find; `None` without jobs.
    check_at: Option<MonoTime>,
    late: usize,
}

impl JobTable {
    pub(in crate::domain::tracker) fn new(jobs: &Jobs) -> Self {
        let mut table = JobTable::default();
        table.replace(jobs);
        table
    }

    pub(in crate::domain::tracker) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Every job.
    pub(in crate::domain::tracker) fn iter(&self) -> impl Iterator<Item = &TrackedJob> + Clone {
        self.jobs.iter()
    }

    pub(in crate::domain::tracker) fn get(&self, name: &str) -> Option<&TrackedJob> {
        self.jobs.get(*self.places.get(name)?)
    }

    /// The job of this name, whose state changes.
    pub(in crate::domain::tracker) fn change(&mut self, name: &str) -> Option<&mut TrackedJob> {
        let place = *self.places.get(name)?;
        self.check_at = Some(MonoTime::START);
        self.jobs.get_mut(place)
    }

    /// Counts the late ones again.
    pub(in crate::domain::tracker) fn recount(&mut self) {
        self.late = self.jobs.iter().filter(|job| job.state.is_late).count();
    }

    /// Those that are late.
    pub(in crate::domain::tracker) fn late(&self) -> impl Iterator<Item = &TrackedJob> {
        let most = if self.late == 0 { 0 } else { usize::MAX };
        self.jobs.iter().take(most).filter(|job| job.state.is_late)
    }

    /// Takes over the jobs of the configuration. One that was there keeps what is known of it, and awaits its runs anew
    /// if its schedule is another. Of two that have one name that of the configuration counts.
    pub(in crate::domain::tracker) fn replace(&mut self, jobs: &Jobs) {
        let mut before: HashMap<_, _> = self.jobs.drain(..).map(|job| (Arc::clone(&job.name), job)).collect();
        for job in jobs.iter() {
            let known = before.remove(job.name.as_str());
            let mut state = known.as_ref().map_or_else(JobState::new, |known| known.state.clone());
            if known.is_some_and(|known| known.job.schedule != job.schedule) {
                state.reschedule();
            }
            let name = Arc::from(job.name.as_str());
            self.jobs.push(TrackedJob { name, job: job.clone(), declared: None, state });
        }
        let mut declared: Vec<_> = before.into_values().filter(|job| job.declared.is_some()).collect();
        declared.sort_by(|one, other| one.name.cmp(&other.name));
        self.jobs.extend(declared);
        self.reindex();
    }

    fn reindex(&mut self) {
        let names = self.jobs.iter().enumerate();
        self.places = names.map(|(place, job)| (Arc::clone(&job.name), place)).collect();
        self.check_at = (!self.jobs.is_empty()).then_some(MonoTime::START);
        self.recount();
    }

    /// Takes a job that was declared. Whether anything is new by it.
    pub(in crate::domain::tracker) fn declare(
        &mut self,
        name: &AgentName,
        uid: u32,
        declared: &DeclaredJob,
        of_host: &TimeZone,
    ) -> Result<bool, DeclareFault> {
        let known = self.get(name.as_str());
        if known.is_some_and(|known| known.declared.as_ref().is_none_or(|known| known == declared)) {
            return Ok(false);
        }
        let job = declared.job(name, uid, of_host).map_err(|_| DeclareFault::Senseless)?;
        if let Some(known) = self.change(name.as_str()) {
            if known.job.schedule != job.schedule {
                known.state.reschedule();
            }
            (known.job, known.declared) = (job, Some(declared.clone()));
            self.recount();
            return Ok(true);
        }
        let all = self.jobs.iter().filter(|job| job.declared.is_some());
        let (mut count, mut own) = (0, 0);
        for job in all {
            count += 1;
            own += usize::from(job.job.uid == Some(uid));
        }
        if count >= MAX_DECLARED || own >= MAX_DECLARED_PER_USER {
            return Err(DeclareFault::TooMany);
        }
        let (name, declared) = (Arc::from(name.as_str()), Some(declared.clone()));
        self.jobs.push(TrackedJob { name, job, declared, state: JobState::new() });
        self.reindex();
        Ok(true)
    }

    /// Ends the wait for a job: one that was declared is forgotten, and one of the configuration is awaited again from
    /// its next run on. Whether it was late.
    pub(in crate::domain::tracker) fn forget(&mut self, name: &str) -> bool {
        let Some(place) = self.places.get(name).copied() else { return false };
        let was_late = self.jobs[place].state.is_late;
        if was_late {
            if self.jobs[place].declared.is_some() {
                self.jobs.remove(place);
            } else {
                self.jobs[place].state.stop_waiting();
            }
            self.reindex();
        }
        was_late
    }

    /// Takes in what both clocks say, and notices when the wall clock was set.
    pub(in crate::domain::tracker) fn set_clock(&mut self, now: MonoTime, wall: WallTime) {
        let before = self.clock.replace((now, wall));
        let Some((mono, then)) = before else { return };
        let expected = then.after(now.since(mono));
        if wall.since(expected) >= STEP || expected.since(wall) >= STEP {
            for TrackedJob { job, state, .. } in &mut self.jobs {
                state.set_clock(job, expected, wall);
            }
            self.check_at = self.check_at.map(|_| MonoTime::START);
        }
    }

    /// The time of the wall clock at `at`, as far as it is known.
    pub(in crate::domain::tracker) fn wall_at(&self, at: MonoTime) -> Option<WallTime> {
        let (mono, wall) = self.clock?;
        Some(if at >= mono { wall.after(at.since(mono)) } else { wall.before(mono.since(at)) })
    }

    /// When the jobs are to be checked, or the clock looked at.
    pub(in crate::domain::tracker) fn poll_timeout(&self) -> Option<MonoTime> {
        self.check_at
    }

    /// What has become of the jobs by `now`, each with its name.
    pub(in crate::domain::tracker) fn check(&mut self, now: MonoTime) -> Vec<(Arc<str>, JobEvent)> {
        if self.check_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let Some(wall) = self.wall_at(now) else {
            self.check_at = Some(now + LOOK_EVERY);
            return Vec::new();
        };
        let mut events = Vec::new();
        let mut next = wall.after(LOOK_EVERY);
        for TrackedJob { name, job, state, .. } in &mut self.jobs {
            events.extend(state.check(job, wall).into_iter().map(|event| (Arc::clone(name), event)));
            next = state.next_check(job).map_or(next, |at| next.min(at));
        }
        // Whole milliseconds: a wake-up that is early finds nothing.
        self.check_at = Some(now + next.since(wall).max(Duration::from_millis(1)));
        self.recount();
        events
    }

    /// Nobody could see a run begin between these times.
    pub(in crate::domain::tracker) fn excuse(&mut self, from: MonoTime, to: MonoTime) {
        let (Some(from), Some(to)) = (self.wall_at(from), self.wall_at(to)) else { return };
        for job in &mut self.jobs {
            job.state.excuse(from, to);
        }
    }

    /// What outlives the server of a job.
    pub(in crate::domain::tracker) fn snapshot(&self, name: &str) -> Option<JobSnapshot> {
        self.get(name).map(TrackedJob::snapshot)
    }

    /// Continues what an earlier server knew, where nobody watched between these times.
    pub(in crate::domain::tracker) fn restore(
        &mut self,
        snapshots: Vec<JobSnapshot>,
        unseen: Option<(WallTime, WallTime)>,
        of_host: &TimeZone,
    ) {
        for JobSnapshot { name, schedule, declared, mut state } in snapshots {
            if let Some((from, to)) = unseen {
                state.excuse(from, to);
            }
            if let Some(place) = self.places.get(&name).copied() {
                let known = &mut self.jobs[place];
                if *known.job.schedule.text() != *schedule {
                    state.reschedule();
                }
                known.state = state;
            } else if let Some((uid, declared)) = declared
                && let Ok(agent) = AgentName::parse(&name)
                && let Ok(job) = declared.job(&agent, uid, of_host)
                && self.jobs.len() < Jobs::MAX_JOBS + MAX_DECLARED
            {
                self.jobs.push(TrackedJob { name, job, declared: Some(declared), state });
                self.reindex();
            }
        }
        self.reindex();
    }
}

impl TrackedJob {
    pub(in crate::domain::tracker) fn snapshot(&self) -> JobSnapshot {
        JobSnapshot {
            name: Arc::clone(&self.name),
            schedule: self.job.schedule.text().into(),
            declared: self.declared.clone().map(|declared| (self.job.uid.unwrap_or_default(), declared)),
            state: self.state.clone(),
        }
    }
}
