//! The configuration of the server: all settings in one [`Config`], with the checks across them.

pub mod args;
mod bounds;
pub(crate) mod commands;
mod document;
pub(crate) mod environment;
mod file;
mod option_kind;
mod origin;
mod schema;
mod task;
#[cfg(test)]
mod tests;
mod toml_text;

use std::path::PathBuf;

pub use self::document::Tables;
pub use self::file::{ConfigFile, Reloaded};
pub use self::task::{CheckArgs, CompleteArgs, ConfigTask, ShowArgs, Task};
use crate::base::error::Error;
pub use crate::base::glob::Glob;
use crate::base::host_check::HostCheck;
pub use crate::base::limits::{EntryError, MAX_DURATION, MAX_REPLACED_WITHIN, MIN_STALL_AFTER};
use crate::base::options::OptionFaults;
pub use crate::domain::process::{OrdinaryEnd, SuccessExit};
use crate::domain::tracker::Policy;
pub use crate::domain::{Expected, ExpectedAgents, ForgetAfter, Job, Jobs, ProgressRule, Rule, Rules};
pub use crate::engine::EngineTables;
use crate::engine::options::check_policy;
pub use crate::ingest::{IngestOptions, NotifyAddress, NotifySocket};
use crate::services;
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
    /// The options whose values are out of range or have no effect, by their names on the command line.
    pub fn check(&self) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        faults.value(self.ingest.check());
        faults.value(check_policy(&self.policy));
        faults.value(self.services.check(&self.ingest.sockets));
        faults.into_result()
    }

    /// Checks what they rely on at this host.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        self.ingest.check_host(host);
        self.services.check_host(host);
    }
}
