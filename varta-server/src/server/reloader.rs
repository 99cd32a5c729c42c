//! The reload on SIGHUP: files that a running server reads again.

use crate::base::error::Error;
use crate::config::{ConfigFile, Reloaded, Tables};
use crate::ingest::Keyring;
use crate::{engine, services};

/// Reloads key files, and of the configuration file rules, expected agents, recovery rules and pauses.
#[derive(Clone, Debug)]
pub struct Reloader {
    pub(super) keyring: Option<Keyring>,
    pub(super) file: Option<ConfigFile>,
    pub(super) engine: engine::reload::Reload,
    pub(super) services: services::Reload,
}

impl Reloader {
    /// Reloads all files, and logs the result. A file that cannot be used leaves everything that comes from
    /// it unchanged.
    pub async fn reload(&self) {
        if self.keyring.is_none() && self.file.is_none() {
            tracing::info!(
                target: "varta::server",
                "there is no file to read again: neither keys nor --config; options stay as given"
            );
        }
        match self.keyring.as_ref().map(Keyring::stage) {
            None => {}
            Some(Ok(staged)) => {
                let keys = staged.commit();
                tracing::info!(
                    target: "varta::server",
                    keys,
                    "the key files were read again; {keys} keys open datagrams"
                );
            }
            Some(Err(error)) => tracing::error!(
                target: "varta::server",
                "the keys stay as they were: {error}"
            ),
        }
        match self.file.as_ref().map(|file| (file, self.stage(file))) {
            None => {}
            // It gives `None` when the server is about to end: then there is nothing to say.
            Some((file, Ok(staged))) => _ = staged.commit(file).await,
            Some((_, Err(error))) => {
                tracing::error!(
                    target: "varta::server",
                    "rules, expected agents and pauses stay as they were: {error}"
                );
            }
        }
    }

    /// Reads the file, and prepares what it says now.
    fn stage(&self, file: &ConfigFile) -> Result<Staged, Error> {
        let Reloaded { tables: Tables { engine, services }, changed_options } = file.reload()?;
        let (rules, expected) = (engine.rules.iter().len(), engine.expected.iter().len());
        let pauses = services.maintenance.iter().len();
        Ok(Staged {
            rules,
            expected,
            pauses,
            engine: self.engine.stage(engine).map_err(|error| file.fault(&error))?,
            services: self.services.stage(services),
            changed_options,
        })
    }
}

/// What a file says that was read again, and does not count yet.
struct Staged {
    rules: usize,
    expected: usize,
    pauses: usize,
    engine: engine::reload::Staged,
    services: services::Staged,
    changed_options: Vec<String>,
}

impl Staged {
    /// Has all of it count from now on, pauses first, and says so. `None` when the server is about to end.
    async fn commit(self, file: &ConfigFile) -> Option<()> {
        let Staged { rules, expected, pauses, engine, services, changed_options } = self;
        services.commit().await?;
        engine.commit().await?;
        let path = file.path().display();
        tracing::info!(
            target: "varta::server",
            rules,
            expected,
            pauses,
            "{path} was read again: {rules} rules, {expected} expected agents and {pauses} pauses count from now on"
        );
        if !changed_options.is_empty() {
            let options = changed_options.join(", ");
            tracing::warn!(
                target: "varta::server",
                %options,
                "{path}: a change of {options} counts only after a restart"
            );
        }
        Some(())
    }
}
