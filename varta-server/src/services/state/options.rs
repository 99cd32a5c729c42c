//! Where the state is kept.

use std::fs::File;
use std::path::PathBuf;

use clap::Args;

use crate::base::error::Error;
use crate::base::files::state_dir::StateDir;
use crate::base::host_check::HostCheck;

/// Where the state is kept. A group of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct StateArgs {
    /// Directory in which agents and their history are kept
    ///
    /// They outlive the server. It creates the directory, with mode 0700, if it is missing. No other user may
    /// have write access, and no other server may use it. Its SQLite database, varta.db, contains the known
    /// agents, and the last 100,000 changes of 30 days.
    #[arg(long, env = "VARTA_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// What these options say.
    #[must_use]
    pub fn options(self) -> StateOptions {
        // An empty variable of the environment counts as unset.
        StateOptions { directory: self.state_dir.filter(|path| !path.as_os_str().is_empty()) }
    }
}

/// Where the state is kept; nowhere by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateOptions {
    /// The directory; `None` for nowhere.
    pub directory: Option<PathBuf>,
}

impl StateOptions {
    /// Checks that the directory can be used, or made.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        if let Some(directory) = &self.directory {
            StateDir::check(directory, host);
        }
    }

    /// Takes the directory for this server, if there is one.
    ///
    /// # Errors
    ///
    /// See [`StateDir::open`].
    pub(crate) fn open_directory(&self) -> Result<Option<StateDir>, Error> {
        self.directory.as_deref().map(StateDir::open).transpose()
    }

    /// The same with the lock that the server before this one has passed, if it has one.
    ///
    /// # Errors
    ///
    /// See [`StateDir::take_over`].
    pub(crate) fn take_over_directory(&self, lock: Option<File>) -> Result<Option<StateDir>, Error> {
        match (&self.directory, lock) {
            (Some(path), Some(lock)) => StateDir::take_over(path, lock).map(Some),
            _ => self.open_directory(),
        }
    }
}
