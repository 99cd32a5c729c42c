//! The reload: keys and configuration that a running server reads again, by SIGHUP or by request.
//!
//! All that may fail is done before anything changes, so that a reload takes over all of it or nothing.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::base::error::Error;
use crate::base::logging::StagedLevel;
use crate::config::{ConfigFile, Reloaded};
use crate::domain::tracker::Policy;
use crate::ingest::listeners::ListenerSet;
use crate::ingest::listeners::reload::Staged as StagedListeners;
use crate::ingest::{KeyFiles, Keyring, StagedKeys};
use crate::metrics::faults::{Faults, Part};
use crate::server::reload_metrics::ReloadMetrics;
use crate::services::context::{ReloadReport, ReloadRequest, ReloadedFile};
use crate::{engine, ingest, services};

/// The longest time for files to be read and names of hosts to be looked up: less than a client waits.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// The option of the level of log lines.
const LOG_LEVEL: &str = "log-level";

/// Carries out reloads, one after the other.
#[derive(Debug)]
pub(super) struct ReloadTask {
    pub(super) keyring: Keyring,
    pub(super) listeners: ListenerSet,
    /// As they were at the start, for a server without a file.
    pub(super) keys: KeyFiles,
    pub(super) policy: Policy,
    /// As it was at the start.
    pub(super) file: Option<ConfigFile>,
    pub(super) engine: engine::reload::Reload,
    pub(super) services: services::Reload,
    pub(super) faults: Faults,
    pub(super) metrics: ReloadMetrics,
}

impl ReloadTask {
    /// Runs until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// None.
    pub(super) async fn run(
        self,
        mut requests: mpsc::Receiver<ReloadRequest>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let serve = async {
            while let Some(answer) = requests.recv().await {
                self.services.notice.begin().await;
                let result = self.reload().await;
                // Who asked may have gone.
                let _ = answer.send(result);
                self.services.notice.end().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve => {}
        }
        Ok(())
    }

    /// Reads all files, has them count from now on, and logs the result. Files that cannot be used leave
    /// everything as it was.
    async fn reload(&self) -> Result<ReloadReport, String> {
        let place = self.file.as_ref().map_or(Path::new("keys"), ConfigFile::path);
        match self.stage().await {
            Ok(staged) => {
                let file = staged.file.clone();
                let report = staged.commit().await.ok_or("the server is stopping")?;
                self.metrics.succeeded(file.as_ref());
                self.faults.clear(Part::Configuration, place);
                log(&report);
                if !report.waiting.is_empty() {
                    let options = report.waiting.join(", ");
                    tracing::warn!(
                        target: "varta::server",
                        %options,
                        "{}: a change of {options} counts only after a restart",
                        place.display()
                    );
                }
                Ok(report)
            }
            Err(error) => {
                self.metrics.failed();
                let said = error.to_string();
                self.faults.set(Part::Configuration, place, said.replace('\n', "; "));
                for fault in said.lines() {
                    tracing::error!(target: "varta::server", "keys and configuration stay as they were: {fault}");
                }
                Err(said)
            }
        }
    }

    /// Reads the key files, for agents that are judged by this policy.
    fn stage_keys(&self, files: &KeyFiles, policy: &Policy) -> Result<(StagedKeys, bool), Error> {
        let staged = self.keyring.stage(files, policy.longest_stall_after())?;
        Ok((staged, !files.are_none()))
    }

    /// Reads the files, and prepares what they say. Nothing changes by it.
    async fn stage(&self) -> Result<Staged, Error> {
        let Some(file) = &self.file else {
            let keys = self.stage_keys(&self.keys, &self.policy)?;
            return Ok(Staged { keys, file: None, settings: None, report: ReloadReport::default() });
        };
        // On another thread: the name of a host is looked up, and who is asked may not answer.
        let former = file.clone();
        let reading = spawn_blocking(move || former.reload());
        let Reloaded { config, log_level, changed_options } = in_time(reading).await??;
        let (rules, expected) = (config.policy.rules.iter().len(), config.policy.expected.iter().len());
        let pauses = config.services.maintenance.planned.iter().len();
        let recovery = config.services.recovery.rules.len();
        let path = file.path().to_path_buf();
        let waiting = changed_options.into_iter().filter(|option| !is_live(option)).collect();
        let (stall_after, max_agents) = (config.policy.stall_after, self.policy.max_agents);
        Ok(Staged {
            keys: self.stage_keys(&config.ingest.keys, &config.policy)?,
            file: config.file,
            settings: Some(Settings {
                engine: self.engine.stage(config.policy, config.ingest.is_only_plain())?,
                services: self.services.stage(config.services)?,
                level: StagedLevel::new(log_level.as_deref())?,
                // Last: others see the sockets that it binds.
                listeners: self.listeners.stage(config.ingest).await?,
                stall_after,
                max_agents,
            }),
            report: ReloadReport {
                keys: None,
                file: Some(ReloadedFile { path, rules, expected, forgotten: 0, pauses, recovery }),
                waiting,
            },
        })
    }
}

/// The result of reading files and looking up names, unless that takes too long: what comes of it then is dropped.
async fn in_time<T>(reading: impl Future<Output = Result<T, JoinError>>) -> Result<T, Error> {
    let failed = |source| Error::Runtime { action: "read the configuration", source };
    let late = || format!("that takes more than {READ_WITHIN:?}; does the server of host names answer?");
    match timeout(READ_WITHIN, reading).await {
        Ok(read) => read.map_err(|error| failed(io::Error::other(error))),
        Err(_) => Err(failed(io::Error::other(late()))),
    }
}

/// Logs what counts from now on.
fn log(report: &ReloadReport) {
    let ReloadReport { keys, file, .. } = report;
    let number = |of: fn(&ReloadedFile) -> usize| file.as_ref().map(of);
    let [rules, expected] = [number(|file| file.rules), number(|file| file.expected)];
    let [pauses, recovery] = [number(|file| file.pauses), number(|file| file.recovery)];
    for line in report.lines() {
        tracing::info!(target: "varta::server", keys, rules, expected, pauses, recovery, "{line}");
    }
}

/// Whether a running server takes over a change of this option.
fn is_live(option: &str) -> bool {
    option == LOG_LEVEL
        || services::Reload::options().any(|live| live == option)
        || engine::reload::options().any(|live| live == option)
        || ingest::options::live_options().any(|live| live == option)
}

/// What was read, and does not count yet.
struct Staged {
    /// Also whether there are key files.
    keys: (StagedKeys, bool),
    file: Option<ConfigFile>,
    settings: Option<Settings>,
    report: ReloadReport,
}

struct Settings {
    engine: engine::reload::Staged,
    services: services::Staged,
    level: StagedLevel,
    listeners: StagedListeners,
    stall_after: Duration,
    max_agents: usize,
}

impl Staged {
    /// Has all of it count from now on, and says what does. `None` when the server is about to end.
    async fn commit(self) -> Option<ReloadReport> {
        let Staged { keys: (keys, has_key_files), file: _, settings, mut report } = self;
        // Before the listeners that need them.
        let keys = keys.commit();
        report.keys = has_key_files.then_some(keys);
        if let Some(Settings { engine, services, level, listeners, stall_after, max_agents }) = settings {
            let forgotten = services.commit(engine.commit()).await?;
            if let Some(file) = &mut report.file {
                file.forgotten = forgotten;
            }
            level.commit();
            listeners.commit(stall_after, max_agents).await?;
        }
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;
    use std::path::PathBuf;
    use std::pin::pin;
    use std::time::Duration;

    use tempfile::TempDir;
    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    use super::*;
    use crate::config::args::{Args, definition, without_variables};
    use crate::engine::query::Query;
    use crate::server::{BoundServer, Server};

    /// A server that does not run, and its file.
    fn server(directory: &TempDir) -> (BoundServer, PathBuf) {
        let [socket, path] = ["varta.sock", "varta.toml"].map(|name| directory.path().join(name));
        fs::write(&path, "[[rule]]\nname = \"a\"\n").unwrap();
        let words =
            ["varta-server", "--control-socket=none", "--metrics-addr=none", "--socket"].map(OsString::from);
        let words = words.into_iter().chain([socket.into(), "--config".into(), path.clone().into()]);
        let args = Args::read_by(without_variables(definition(), |_| true), words).unwrap();
        (Server::bind(args.into_config().unwrap()).unwrap(), path)
    }

    /// Answers as a tracker does, and counts the policies that it gets. Does not end while the server is there.
    async fn answer(queries: &mut mpsc::Receiver<Query>, policies: &mut usize) {
        while let Some(query) = queries.recv().await {
            if let Query::Policy { answer, .. } = query {
                *policies += 1;
                answer.send(0).unwrap();
            }
        }
    }

    async fn reload(task: &ReloadTask, server: &mut BoundServer) -> Result<ReloadReport, String> {
        let mut policies = 0;
        tokio::select! {
            result = task.reload() => result,
            () = answer(&mut server.queries, &mut policies) => unreachable!("the task can ask"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_takes_too_long_to_read_fails_and_changes_nothing() {
        let refused = in_time(std::future::pending::<Result<(), JoinError>>()).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "cannot read the configuration: that takes more than 30s; does the server of host names answer?"
        );
    }

    #[test]
    fn other_tasks_run_while_the_file_is_read_and_names_are_looked_up() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (mut server, _) = server(&directory);
            let task = server.reload_task();
            // Nothing is read before the only other thread is free.
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = spawn_blocking(move || released.recv());
            let mut reload = pin!(task.reload());
            tokio::select! {
                biased;
                _ = &mut reload => panic!("it reads on the thread of all tasks"),
                () = yield_now() => drop(release),
            }
            assert!(busy.await.unwrap().is_err());
            let mut policies = 0;
            tokio::select! {
                result = &mut reload => drop(result.unwrap()),
                () = answer(&mut server.queries, &mut policies) => unreachable!("the task can ask"),
            }
        });
    }

    #[tokio::test]
    async fn rules_of_recovery_are_refused_that_would_be_carried_out_without_the_audit_log_that_the_file_names()
     {
        let directory = tempfile::tempdir().unwrap();
        let (mut server, path) = server(&directory);
        let task = server.reload_task();
        let audit = format!("audit-log = \"{}\"", directory.path().join("audit").display());
        let rule = "[[recovery]]\nname = \"a\"\nexec = \"/bin/true\"\n";
        fs::write(&path, format!("{audit}\n{rule}")).unwrap();
        let refused = reload(&task, &mut server).await.unwrap_err();
        assert!(refused.contains("--audit-log") && refused.contains("restart"), "{refused}");
        fs::write(&path, rule).unwrap();
        assert_eq!(reload(&task, &mut server).await.unwrap().file.unwrap().recovery, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tracker_gets_new_rules_also_while_recovery_has_not_taken_older_ones() {
        let directory = tempfile::tempdir().unwrap();
        let (mut server, _) = server(&directory);
        let task = server.reload_task();
        let twice = async {
            task.reload().await.unwrap();
            // The server does not run, so nothing takes what alerts and recovery are given, for which there is one place.
            timeout(Duration::from_secs(1), task.reload()).await
        };
        let mut policies = 0;
        tokio::select! {
            second = twice => assert!(second.is_err(), "it waits for them"),
            () = answer(&mut server.queries, &mut policies) => unreachable!("the task can ask"),
        }
        assert_eq!(policies, 2);
    }

    #[test]
    fn a_running_server_takes_over_what_agents_are_judged_by_and_lays_out_no_memory_anew() {
        let live =
            ["stall-after", "detector", "phi-threshold", "log-level", "metrics-token-file", "recovery-exec"];
        assert!(live.into_iter().all(is_live));
        assert!(["metrics-addr", "socket", "secure-udp", "master-key-file"].into_iter().all(is_live));
        assert!(!["max-agents", "socket-queue", "state-dir", "x"].into_iter().any(is_live));
    }

    #[test]
    fn every_option_that_is_taken_over_is_one_of_the_command_line() {
        let command = definition();
        let options: Vec<_> = command.get_arguments().filter_map(|option| option.get_long()).collect();
        let live = services::Reload::options().chain(ingest::options::live_options());
        for option in live.chain(engine::reload::options()) {
            assert!(options.contains(&option.as_str()), "{option}");
        }
        assert!(options.contains(&LOG_LEVEL));
    }
}
