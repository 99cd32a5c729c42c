//! The configuration of the server: all settings in one [`Config`], with the checks across them.

pub mod args;
mod document;
pub(crate) mod environment;
mod file;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use self::document::Tables;
pub use self::file::{ConfigFile, Reloaded};
use crate::base::error::Error;
pub use crate::base::glob::Glob;
pub use crate::base::limits::{EntryError, MAX_DURATION, MAX_REPLACED_WITHIN, MIN_STALL_AFTER};
pub use crate::domain::process::{OrdinaryEnd, SuccessExit};
use crate::domain::tracker::Policy;
pub use crate::domain::{Expected, ExpectedAgents, ForgetAfter, Rule, Rules};
pub use crate::engine::EngineTables;
use crate::engine::options::check_policy;
pub use crate::ingest::IngestOptions;
use crate::services;
pub use crate::services::Task;
pub use crate::services::maintenance::{
    ControlSocket, MaintenanceOptions, PlannedPause, PlannedPauses, Reason,
};

/// All settings of a server.
///
/// ```
/// use std::time::Duration;
/// use varta_server::config::Config;
///
/// let mut config = Config::for_socket("/tmp/varta.sock".into());
/// config.policy.stall_after = Duration::from_secs(2);
/// config.check()?;
/// # Ok::<(), varta_server::Error>(())
/// ```
#[derive(Debug)]
pub struct Config {
    /// Where agents beat.
    pub ingest: IngestOptions,
    /// What the capabilities do.
    pub services: services::Options,
    /// The policy of the tracker.
    pub policy: Policy,
    /// The configuration file, for reloads; `None` without one.
    pub file: Option<ConfigFile>,
}

impl Config {
    /// The defaults with one Unix socket at `path`, no metrics and no control socket.
    #[must_use]
    pub fn for_socket(path: PathBuf) -> Self {
        Config {
            ingest: IngestOptions::for_socket(path),
            services: services::Options::default(),
            policy: Policy::default(),
            file: None,
        }
    }

    /// Checks ranges and combinations that the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value is out of range or has no effect, by its name on the command line.
    pub fn check(&self) -> Result<(), Error> {
        self.ingest.check()?;
        check_policy(&self.policy)?;
        self.services.check(&self.ingest.sockets)
    }
}
