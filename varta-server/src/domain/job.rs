//! Jobs: names that are expected to begin again and again, by a schedule.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::control::AgentName;

use crate::base::EntryError;
use crate::base::limits::check_duration;
use crate::base::time_zone::TimeZone;
use crate::domain::schedule::Schedule;

/// A job: when its runs are due, and how long one may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The name of the agents that are its runs.
    pub name: AgentName,
    /// When a run is due.
    pub schedule: Schedule,
    /// How late a run may begin.
    pub grace: Duration,
    /// How long a run may take; `None` for any time.
    pub longest_run: Option<Duration>,
    /// Whether it is an alarm that a run begins while another is under way.
    pub alarm_on_overlap: bool,
    /// The user whose agents are its runs; `None` for any that is admitted.
    pub uid: Option<u32>,
}

impl Job {
    /// The grace of a job for which no other is given.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);
}

/// The jobs of the configuration, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    jobs: Vec<Job>,
    names: HashSet<AgentName>,
}

impl Jobs {
    /// The maximum number of jobs in the configuration.
    pub const MAX_JOBS: usize = 1_024;

    /// Adds a job.
    ///
    /// # Errors
    ///
    /// When there are too many, when the name is already among them, or when a duration is not between
    /// [10 ms](crate::base::limits::MIN_STALL_AFTER) and [366 days](crate::base::limits::MAX_DURATION). Nothing changes then.
    pub fn add(&mut self, job: Job) -> Result<(), EntryError> {
        check_duration("grace", job.grace)?;
        if let Some(longest) = job.longest_run {
            check_duration("longest-run", longest)?;
        }
        if self.jobs.len() >= Self::MAX_JOBS {
            return Err(EntryError::TooMany { most: Self::MAX_JOBS });
        }
        if !self.names.insert(job.name) {
            return Err(EntryError::NameTwice { name: job.name.to_string() });
        }
        self.jobs.push(job);
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Every job, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Job> {
        self.jobs.iter()
    }
}

/// A job as a process has declared it, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredJob {
    /// The schedule.
    pub schedule: Arc<str>,
    /// The time zone; `None` for that of the host.
    pub timezone: Option<Arc<str>>,
    /// How late a run may begin.
    pub grace: Option<Duration>,
    /// How long a run may take.
    pub longest_run: Option<Duration>,
    /// Whether it is an alarm that a run begins while another is under way.
    #[serde(default)]
    pub alarm_on_overlap: bool,
}

impl DeclaredJob {
    /// The job of this name that a process of the user `uid` has declared, where the host has the zone `of_host`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn job(&self, name: &AgentName, uid: u32, of_host: &TimeZone) -> Result<Job, String> {
        let zone = match &self.timezone {
            Some(zone) => TimeZone::named(zone).map_err(|error| error.to_string())?,
            None => of_host.clone(),
        };
        let schedule = Schedule::parse(&self.schedule, &zone, |name| TimeZone::named(name).ok())
            .map_err(|error| error.to_string())?;
        let grace = self.grace.unwrap_or(Job::DEFAULT_GRACE);
        for (key, span) in [("grace", Some(grace)), ("longest run", self.longest_run)] {
            if let Some(span) = span {
                check_duration(key, span).map_err(|error| error.to_string())?;
            }
        }
        let &DeclaredJob { longest_run, alarm_on_overlap, .. } = self;
        Ok(Job { name: *name, schedule, grace, longest_run, alarm_on_overlap, uid: Some(uid) })
    }
}
