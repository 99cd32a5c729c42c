//! The state of one job: what is awaited of it, which runs are under way, and what the last ones were.
//!
//! All times are of the wall clock, as schedules are. Time in which nobody could see a run begin does not count:
//! [`JobState::excuse`].

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::WallTime;
use crate::domain::beat::Origin;
use crate::domain::job::Job;
use crate::domain::tracker::verdicts::transition::{AgentId, Twin};

/// The most runs of one job that are told apart at the same time.
pub(in crate::domain::tracker) const MAX_RUNNING: usize = 16;
/// The number of durations that are remembered.
const MAX_DURATIONS: usize = 32;
/// A due time further off than this after the clock was set back is one of the clock before.
const FAR: Duration = Duration::from_secs(86_400);

/// The agent that is a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunKey {
    pub(crate) origin: Origin,
    pub(crate) pid: u32,
    pub(crate) twin: Twin,
}

impl RunKey {
    pub(crate) const fn of(agent: &AgentId) -> Self {
        RunKey { origin: agent.origin, pid: agent.pid, twin: agent.twin }
    }
}

/// A run that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) key: RunKey,
    pub(crate) started: WallTime,
    pub(crate) has_overrun: bool,
    /// Whether it is an alarm that it began while another was under way.
    #[serde(default)]
    pub(crate) overlap: OverlapAlarm,
}

/// Whether it is an alarm that a run began while another was under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OverlapAlarm {
    /// It did not, or that is none.
    #[default]
    None,
    /// That is to be told.
    Due,
    /// That was told.
    Told,
}

/// What is known of a job beside what was configured or declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobState {
    /// The time at which the next run is due, or was; `None` before the clock is known, and when there is none.
    pub(crate) due: Option<WallTime>,
    /// Whether `due` is to be computed.
    is_new: bool,
    /// The time since `due` in which nobody could see a run begin.
    excused: Duration,
    /// Whether a run was due and has not begun.
    pub(crate) is_late: bool,
    /// The due time of which that is said.
    pub(crate) late_for: Option<WallTime>,
    pub(crate) running: Vec<Run>,
    pub(crate) last_start: Option<WallTime>,
    pub(crate) last_end: Option<WallTime>,
    pub(crate) last_success: Option<WallTime>,
    pub(crate) last_duration: Option<Duration>,
    /// Of the last runs that ended well.
    durations: VecDeque<Duration>,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    /// Due times at which no run began.
    pub(crate) missed: u64,
    pub(crate) overlaps: u64,
    pub(crate) overruns: u64,
}

/// What became of a job with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::domain::tracker) enum JobEvent {
    /// A run was due so long ago and has not begun.
    Late { since: Duration },
    /// A run takes longer than it may: it has taken so long.
    Overran { key: RunKey, taken: Duration },
    /// A run that began so long ago did so while another was under way, which is to be an alarm.
    Overlapped { key: RunKey, taken: Duration },
}

impl JobState {
    /// The state of a job of which nothing is known.
    pub(in crate::domain::tracker) fn new() -> Self {
        JobState { is_new: true, ..JobState::default() }
    }

    /// Awaits the first run by a new schedule.
    pub(in crate::domain::tracker) fn reschedule(&mut self) {
        (self.is_new, self.due, self.excused, self.is_late) = (true, None, Duration::ZERO, false);
    }

    /// Awaits no run before one has begun.
    pub(in crate::domain::tracker) fn stop_waiting(&mut self) {
        (self.is_new, self.due, self.excused, self.is_late) = (false, None, Duration::ZERO, false);
    }

    /// Records the begin of a run. Whether another was under way.
    pub(in crate::domain::tracker) fn begin(&mut self, job: &Job, key: RunKey, at: WallTime) -> bool {
        let overlaps = !self.running.is_empty();
        self.overlaps += u64::from(overlaps);
        self.running.retain(|run| run.key != key);
        if self.running.len() >= MAX_RUNNING {
            self.running.remove(0);
        }
        let overlap = if overlaps && job.alarm_on_overlap { OverlapAlarm::Due } else { OverlapAlarm::None };
        self.running.push(Run { key, started: at, has_overrun: false, overlap });
        self.note_begun(job, at);
        overlaps
    }

    fn note_begun(&mut self, job: &Job, at: WallTime) {
        self.last_start = Some(at);
        (self.is_late, self.is_new, self.excused) = (false, false, Duration::ZERO);
        let next = job.schedule.next_after(at);
        // A clock that was set back makes no run due twice.
        let is_kept = |due: &WallTime| next.is_some_and(|next| next < *due && *due <= next.after(FAR));
        self.due = self.due.filter(is_kept).or(next);
    }

    /// Records the end of a run.
    pub(in crate::domain::tracker) fn end(&mut self, job: &Job, key: RunKey, is_well: bool, at: WallTime) {
        let run = self.running.iter().position(|run| run.key == key).map(|place| self.running.remove(place));
        let duration = run.map(|run| at.since(run.started));
        if duration.is_none() {
            // Its begin was not seen.
            self.note_begun(job, at);
        }
        self.last_end = Some(at);
        self.last_duration = duration.or(self.last_duration);
        if is_well {
            self.succeeded += 1;
            self.last_success = Some(at);
            if let Some(duration) = duration {
                if self.durations.len() >= MAX_DURATIONS {
                    self.durations.pop_front();
                }
                self.durations.push_back(duration);
            }
        } else {
            self.failed += 1;
        }
    }

    /// Forgets a run of which no end will be known.
    pub(in crate::domain::tracker) fn drop_run(&mut self, key: RunKey) -> bool {
        let before = self.running.len();
        self.running.retain(|run| run.key != key);
        self.running.len() < before
    }

    /// The same, if the process of the run is another by now.
    pub(in crate::domain::tracker) fn drop_run_if(&mut self, key: RunKey, is_another: bool) {
        if is_another {
            self.drop_run(key);
        }
    }

    pub(in crate::domain::tracker) fn has_run(&self, key: RunKey) -> bool {
        self.running.iter().any(|run| run.key == key)
    }

    /// What has become of it by `now`. Each is told once.
    pub(in crate::domain::tracker) fn check(&mut self, job: &Job, now: WallTime) -> Vec<JobEvent> {
        if self.is_new {
            (self.is_new, self.due) = (false, job.schedule.next_after(now));
        }
        let mut events = Vec::new();
        if let Some(due) = self.due
            && now >= due.after(job.grace + self.excused)
        {
            // A run that was going on when the next was due is not late.
            let was_going_on = !self.running.is_empty() || self.last_end.is_some_and(|end| end >= due);
            if !was_going_on {
                self.missed += 1;
                self.late_for = Some(due);
                if !self.is_late {
                    self.is_late = true;
                    events.push(JobEvent::Late { since: now.since(due) });
                }
            }
            self.due = job.schedule.next_after(due.max(now.before(job.grace)));
            self.excused = Duration::ZERO;
        }
        for run in self.running.iter_mut().filter(|run| run.overlap == OverlapAlarm::Due) {
            run.overlap = OverlapAlarm::Told;
            events.push(JobEvent::Overlapped { key: run.key, taken: now.since(run.started) });
        }
        if let Some(longest) = job.longest_run {
            for run in self.running.iter_mut().filter(|run| !run.has_overrun) {
                let taken = now.since(run.started);
                if taken >= longest {
                    run.has_overrun = true;
                    self.overruns += 1;
                    events.push(JobEvent::Overran { key: run.key, taken });
                }
            }
        }
        events
    }

    /// When [`JobState::check`] has something to find, as far as known by now; `None` for never.
    pub(in crate::domain::tracker) fn next_check(&self, job: &Job) -> Option<WallTime> {
        if self.is_new || self.running.iter().any(|run| run.overlap == OverlapAlarm::Due) {
            return Some(WallTime::default());
        }
        let late = self.due.map(|due| due.after(job.grace + self.excused));
        let first = self.running.iter().filter(|run| !run.has_overrun).map(|run| run.started).min();
        let overrun = job.longest_run.zip(first).map(|(longest, first)| first.after(longest));
        late.into_iter().chain(overrun).min()
    }

    /// Nobody could see a run begin between these times.
    pub(in crate::domain::tracker) fn excuse(&mut self, from: WallTime, to: WallTime) {
        if let Some(due) = self.due.filter(|due| *due < to) {
            self.excused += to.since(from.max(due));
        }
    }

    /// The clock was set from one time to the other.
    pub(in crate::domain::tracker) fn set_clock(&mut self, job: &Job, from: WallTime, to: WallTime) {
        self.excuse(from, to);
        for run in &mut self.running {
            run.started = if to >= from {
                run.started.after(to.since(from))
            } else {
                run.started.before(from.since(to))
            };
        }
        // What happened did so before now, whatever the clock said then.
        for last in [&mut self.last_start, &mut self.last_end, &mut self.last_success] {
            *last = last.map(|last| last.min(to));
        }
        // A due time of a clock that was far ahead would never come.
        let due = self.due;
        if to < from
            && from.since(to) >= FAR
            && due.is_some_and(|due| job.schedule.next_after(to).is_some_and(|next| next.after(FAR) < due))
        {
            self.due = job.schedule.next_after(to);
        }
    }

    /// The duration of which this share of the last runs that ended well took no longer, in percent.
    pub(crate) fn duration_at(&self, percent: usize) -> Option<Duration> {
        let mut sorted: Vec<_> = self.durations.iter().copied().collect();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1).min(last)).copied()
    }
}
