//! What SIGHUP is for: files that a running server reads again.

use tokio::sync::mpsc;

use crate::base::clock::wall_now;
use crate::config::{ConfigFile, Reread};
use crate::domain::tracker::Policy;
use crate::engine::query::Query;
use crate::ingest::Vault;
use crate::services::maintenance::pauses::Pauses;
use crate::services::recovery;

/// The files that a server reads again while it runs: keys, and of the configuration rules, expected agents and pauses.
#[derive(Clone, Debug)]
pub struct Reloader {
    pub(super) vault: Option<Vault>,
    pub(super) file: Option<ConfigFile>,
    /// What the file has to go together with.
    pub(super) policy: Policy,
    pub(super) recovery: recovery::service::Reload,
    pub(super) to_queries: mpsc::Sender<Query>,
    pub(super) pauses: Pauses,
}

impl Reloader {
    /// Reads the files again, and says in the log what came of it. A file that cannot be used leaves everything that
    /// comes from it as it was.
    pub async fn read_anew(&self) {
        if self.vault.is_none() && self.file.is_none() {
            tracing::info!(
                target: "varta::server",
                "there is no file to read again: neither keys nor --config; options stay as given"
            );
        }
        match self.vault.as_ref().map(Vault::read_anew) {
            None => {}
            Some(Ok(keys)) => {
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
        match self.file.as_ref().map(|file| (file, file.read_anew(&self.policy))) {
            None => {}
            Some((file, Ok(reread))) => self.go_by(file, reread).await,
            Some((_, Err(error))) => {
                tracing::error!(
                    target: "varta::server",
                    "rules, expected agents and pauses stay as they were: {error}"
                );
            }
        }
    }

    async fn go_by(&self, file: &ConfigFile, reread: Reread) {
        let Reread { rules, expected, recovery, pauses, changed_options } = reread;
        let path = file.path().display();
        let (rule_count, expected_count) = (rules.iter().len(), expected.iter().len());
        let pause_count = pauses.iter().len();
        self.pauses.plan(&pauses, wall_now());
        if self.to_queries.send(Query::Rules(Box::new((rules, expected)))).await.is_err() {
            // The server is about to end.
            return;
        }
        if self.recovery.stage(&recovery).commit().await.is_none() {
            return;
        }
        tracing::info!(
            target: "varta::server",
            rules = rule_count,
            expected = expected_count,
            pauses = pause_count,
            "{path} was read again: {rule_count} rules, {expected_count} expected agents and {pause_count} pauses count \
             from now on"
        );
        if !changed_options.is_empty() {
            let options = changed_options.join(", ");
            tracing::warn!(
                target: "varta::server",
                %options,
                "{path}: a change of {options} counts only after a restart"
            );
        }
    }
}
