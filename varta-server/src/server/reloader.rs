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
        self.services.notice.begin().await;
        self.read_again().await;
        self.services.notice.end().await;
    }

    async fn read_again(&self) {
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
    /// Has all of it count from now on, and says so. `None` when the server is about to end.
    async fn commit(self, file: &ConfigFile) -> Option<()> {
        let Staged { rules, expected, pauses, engine, services, changed_options } = self;
        services.commit(engine.commit()).await?;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use clap::{CommandFactory, FromArgMatches};
    use tokio::time::timeout;

    use super::*;
    use crate::config::args::Args;
    use crate::engine::query::Query;
    use crate::server::Server;

    #[tokio::test(start_paused = true)]
    async fn the_tracker_gets_new_rules_also_while_recovery_has_not_taken_older_ones() {
        let directory = tempfile::tempdir().unwrap();
        let [socket, path] = ["varta.sock", "varta.toml"].map(|name| directory.path().join(name));
        fs::write(&path, "[[rule]]\nname = \"a\"\n").unwrap();
        let command = Args::command().mut_args(|option| option.env(None::<&str>));
        let words = ["varta-server", "--socket", socket.to_str().unwrap(), "--control-socket=none"];
        let matches = command.clone().get_matches_from(words.into_iter().chain(["--metrics-addr=none"]));
        let file = Some(ConfigFile::read(&path, &command).unwrap());
        let config = Args { file, ..Args::from_arg_matches(&matches).unwrap() }.into_config().unwrap();
        let mut server = Server::bind(config).unwrap();
        let reloader = server.reloader();
        reloader.reload().await;
        // The server does not run, so nothing takes recovery's rules, for which there is one place.
        let second = timeout(Duration::from_secs(1), reloader.reload()).await;
        assert!(second.is_err(), "it waits for recovery");
        for _ in 0..2 {
            assert!(matches!(server.queries.try_recv(), Ok(Query::Rules(_))));
        }
    }
}
