//! The subcommands: the tasks of the capabilities, and those with the configuration itself, which
//! [`commands`](super::commands) carries out.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::base::error::Error;
use crate::config::commands;
use crate::services;

/// What the program can do instead of serving.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum Task {
    /// A task of a capability.
    #[command(flatten)]
    Service(services::Task),
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigTask),
}

impl Task {
    /// Does it, and prints what came of it.
    ///
    /// # Errors
    ///
    /// What kept it from being done.
    pub fn run(&self) -> Result<(), Error> {
        match self {
            Task::Service(task) => task.run(),
            Task::Config(ConfigTask::Check(check)) => commands::check(check),
        }
    }
}

/// What can be done with a configuration.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum ConfigTask {
    /// Check a configuration file
    ///
    /// As a server does that is started with the file and no other options: variables of the environment have no
    /// effect. All faults are printed, a line for each, with the line of the file and what would be right. Only the
    /// file itself is read, and no users, groups and hosts are looked up, so that it may be the file of another host.
    ///
    /// Exit status: 0 when a server takes the file, and 2 when not.
    Check(CheckArgs),
}

/// Which file to check, and how far.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Also check what the file relies on at this host
    ///
    /// As the user who asks: whether sockets can be made, and addresses are free; whether files with keys and
    /// secrets can be read, are closed to others and hold what they should; whether directories can be written to;
    /// whether users, groups and the hosts of URLs are known. Nothing is made, changed or sent. A server that runs
    /// with the file is not disturbed, and that it has its sockets and addresses is no fault.
    #[arg(long)]
    pub environment: bool,
}
