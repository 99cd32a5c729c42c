//! The commands that follow a running server.

use std::process::ExitCode;

use clap::Subcommand;

use crate::base::error::Error;
use crate::services::follow::events::ChangesArgs;
use crate::services::follow::watch::WatchArgs;

/// How a running server can be followed.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum FollowTask {
    /// Print the changes of a running server's agents
    ///
    /// The last ones that the server knows, or with --follow those that come: as sentences on a terminal, else as the
    /// lines of JSON that --events-file has. Only the server's own user and root may ask. With --follow it goes on when
    /// the server is started again or upgraded, and says on standard error when changes may be missing.
    Events(ChangesArgs),

    /// Wait until an agent of a running server is in a state
    ///
    /// It ends at once where that is so already. Only the server's own user and root may ask. A server that is started
    /// again or upgraded meanwhile is asked again. Exit status: 0 if it has come to be so, 1 if not in time, 2 if that
    /// cannot be told, because no server answers.
    Watch(WatchArgs),
}

impl FollowTask {
    /// Follows, and prints what there is. Gives the exit status of the program.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked, or nothing can be printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        match self {
            FollowTask::Events(args) => args.run(),
            FollowTask::Watch(args) => args.run(),
        }
    }
}
