//! The subcommands of all capabilities: the part of the registration that is a command line.

use std::process::ExitCode;

use clap::Subcommand;

use crate::base::error::Error;
use crate::services::audit::AuditTask;
use crate::services::beat::BeatTask;
use crate::services::doctor::DoctorTask;
use crate::services::exec::ExecTask;
use crate::services::follow::FollowTask;
use crate::services::maintenance::MaintenanceTask;
use crate::services::recording::RecordingTask;
use crate::services::schedule::ScheduleTask;
use crate::services::top::TopTask;

/// What the program can do instead of serving.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum Task {
    /// With a recording.
    #[command(flatten)]
    Recording(RecordingTask),
    /// With the agents of a running server.
    #[command(flatten)]
    Maintenance(MaintenanceTask),
    /// Work with an audit log
    #[command(subcommand)]
    Audit(AuditTask),
    /// With a command of the user.
    #[command(flatten)]
    Exec(ExecTask),
    /// With a word on a job.
    #[command(flatten)]
    Beat(BeatTask),
    /// With what may be wrong.
    #[command(flatten)]
    Doctor(DoctorTask),
    /// With what a running server sees.
    #[command(flatten)]
    Follow(FollowTask),
    /// With a terminal.
    #[command(flatten)]
    Top(TopTask),
    /// With a schedule.
    #[command(flatten)]
    Schedule(ScheduleTask),
}

impl Task {
    /// Does it, and prints what came of it. Gives the exit status of the program.
    ///
    /// # Errors
    ///
    /// What kept it from being done.
    pub fn run(&self) -> Result<ExitCode, Error> {
        match self {
            Task::Recording(task) => task.run()?,
            Task::Maintenance(task) => return task.run(),
            Task::Audit(task) => task.run()?,
            Task::Beat(task) => task.run()?,
            Task::Exec(task) => return task.run(),
            Task::Doctor(task) => return task.run(),
            Task::Follow(task) => return task.run(),
            Task::Top(task) => return task.run(),
            Task::Schedule(task) => return task.run(),
        }
        Ok(ExitCode::SUCCESS)
    }
}
