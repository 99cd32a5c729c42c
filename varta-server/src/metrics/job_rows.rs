//! Series of jobs, rendered at each scrape as those of agents are. There are at most two thousand jobs.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::BytesMut;

use crate::base::time::{WallTime, millis};
use crate::domain::tracker::JobView;
use crate::metrics::agent_rows::{begun, put_escaped};
use crate::metrics::family::{Family, families};

families! {
    LATE = "varta_job_late", "1 while a run of this job was due and none has begun within its grace, else 0.";
    RUNNING = "varta_job_running", "Runs of this job that are under way.";
    NEXT_DUE = "varta_job_next_due_timestamp_seconds", "Unix time at which the next run of this job is due.";
    LAST_START = "varta_job_last_start_timestamp_seconds", "Unix time at which the last run of this job began.";
    LAST_END = "varta_job_last_end_timestamp_seconds", "Unix time at which the last run of this job ended.";
    LAST_SUCCESS = "varta_job_last_success_timestamp_seconds",
        "Unix time at which the last run of this job that ended well did so.";
    LAST_DURATION = "varta_job_last_duration_seconds", "How long the last run of this job took.";
    DURATION = "varta_job_duration_seconds",
        "How long half, and 95 of 100, of the last 32 runs of this job that ended well took at the most.";
    RUNS = "varta_job_runs_total", "Runs of this job that have ended, by how.";
    MISSED = "varta_job_missed_total", "Due times of this job at which no run began within its grace.";
    OVERLAPS = "varta_job_overlaps_total", "Runs of this job that began while another was under way.";
    OVERRUNS = "varta_job_overruns_total", "Runs of this job that took longer than they may.";
}

/// A value of a job, if it is known.
type Reading = fn(&JobView<'_>) -> Option<Sample>;

/// The value of a sample.
enum Sample {
    Count(u64),
    Millis(u64),
}

fn moment(at: Option<WallTime>) -> Option<Sample> {
    at.map(|at| Sample::Millis(at.as_millis()))
}

fn span(span: Option<Duration>) -> Option<Sample> {
    span.map(|span| Sample::Millis(millis(span)))
}

const fn count(count: u64) -> Option<Sample> {
    Some(Sample::Count(count))
}

/// Each series of a job: its family and type, its further labels, and its value.
const ROWS: [(Family, &str, &str, Reading); 14] = [
    (LATE, "gauge", "", |job| count(u64::from(job.state.is_late))),
    (RUNNING, "gauge", "", |job| count(job.state.running.len() as u64)),
    (NEXT_DUE, "gauge", "", |job| moment(job.state.due)),
    (LAST_START, "gauge", "", |job| moment(job.state.last_start)),
    (LAST_END, "gauge", "", |job| moment(job.state.last_end)),
    (LAST_SUCCESS, "gauge", "", |job| moment(job.state.last_success)),
    (LAST_DURATION, "gauge", "", |job| span(job.state.last_duration)),
    (DURATION, "gauge", ",quantile=\"0.5\"", |job| span(job.state.duration_at(50))),
    (DURATION, "gauge", ",quantile=\"0.95\"", |job| span(job.state.duration_at(95))),
    (RUNS, "counter", ",outcome=\"ok\"", |job| count(job.state.succeeded)),
    (RUNS, "counter", ",outcome=\"failed\"", |job| count(job.state.failed)),
    (MISSED, "counter", "", |job| count(job.state.missed)),
    (OVERLAPS, "counter", "", |job| count(job.state.overlaps)),
    (OVERRUNS, "counter", "", |job| count(job.state.overruns)),
];

/// The series of all jobs, those of one family together.
pub(crate) fn job_rows<'a>(jobs: &(impl Iterator<Item = JobView<'a>> + Clone)) -> BytesMut {
    let mut all = BytesMut::new();
    for rows in ROWS.chunk_by(|(one, ..), (other, ..)| one.name == other.name) {
        let mut body = BytesMut::new();
        for job in jobs.clone() {
            for (family, kind, labels, value) in rows {
                let Some(value) = value(&job) else { continue };
                let body = begun(&mut body, (*family, *kind));
                // Writing to memory cannot fail.
                let _ = write!(body, "{}{{agent=\"", family.name);
                put_escaped(body, job.name);
                let _ = match value {
                    Sample::Count(count) => writeln!(body, "\"{labels}}} {count}"),
                    Sample::Millis(millis) => {
                        writeln!(body, "\"{labels}}} {}.{:03}", millis / 1_000, millis % 1_000)
                    }
                };
            }
        }
        all.unsplit(body);
    }
    all
}
