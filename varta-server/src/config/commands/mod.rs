//! The tasks: those of the capabilities, and those with the configuration itself.

mod check;
mod complete;
mod schema;
mod show;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::base::error::Error;
use crate::config::args::Args;
use crate::config::task::{ConfigTask, Task};

/// Does the task that `args` ask for, and prints what came of it. Gives the exit status of the program.
///
/// # Errors
///
/// What kept it from being done.
pub fn run(task: &Task, args: &Args) -> Result<ExitCode, Error> {
    match task {
        Task::Service(task) => return task.run(),
        Task::Config(ConfigTask::Check(check)) => check::run(check)?,
        Task::Config(ConfigTask::Show(show)) => show::run(show, args)?,
        Task::Config(ConfigTask::Schema) => schema::run()?,
        Task::Complete(line) => complete::run(line)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what is no fault.
fn note(line: &str) {
    // Whether anybody can hear it makes no difference.
    let _ = writeln!(io::stderr(), "varta-server: {line}");
}
