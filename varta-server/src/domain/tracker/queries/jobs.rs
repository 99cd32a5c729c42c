//! How the jobs are at this moment, for a person.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::WallTime;
use crate::domain::tracker::state::Tracker;

/// How a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobStatus {
    pub(crate) name: Arc<str>,
    /// The due time at which no run has begun; `None` if it is not late.
    pub(crate) late_since: Option<WallTime>,
    /// When the next run is due; `None` before the clock is known, and for never again.
    pub(crate) next_due: Option<WallTime>,
    /// When the runs that are under way began, the first one first.
    pub(crate) running_since: Vec<WallTime>,
    pub(crate) last_end: Option<WallTime>,
    /// When the last run that ended well did so.
    pub(crate) last_success: Option<WallTime>,
    pub(crate) last_duration: Option<Duration>,
}

impl Tracker {
    /// How each job is: first those that are late, then those that are due next.
    pub(crate) fn job_statuses(&self) -> Vec<JobStatus> {
        let mut jobs: Vec<_> = self
            .jobs()
            .map(|job| {
                let (name, state) = (Arc::clone(job.name), job.state);
                let mut running_since: Vec<_> = state.running.iter().map(|run| run.started).collect();
                running_since.sort_unstable();
                JobStatus {
                    name,
                    late_since: state.late_for.filter(|_| state.is_late),
                    next_due: state.due,
                    running_since,
                    last_end: state.last_end,
                    last_success: state.last_success,
                    last_duration: state.last_duration,
                }
            })
            .collect();
        jobs.sort_by(|one, other| {
            let order = |job: &JobStatus| {
                (job.late_since.is_none(), job.late_since, job.next_due.is_none(), job.next_due)
            };
            order(one).cmp(&order(other)).then_with(|| one.name.cmp(&other.name))
        });
        jobs
    }
}
