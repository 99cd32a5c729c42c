//! The server as a whole: binds everything it needs, runs it, and takes it down in order.

use std::fs;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, QUERIES, Sinks};
use crate::beat::Transport;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Error;
use crate::http::{self, Site};
use crate::ingest::IngestThread;
use crate::listener::{INBOX_BATCHES, UnixListener};
use crate::logging;
use crate::metrics::{FrameCounters, Registry, ServerMetrics, TrackerMetrics, names};
use crate::process::ProcFs;
use crate::sink::{self, LOG_QUEUE};
use crate::time::millis;
use crate::tracker::Tracker;

/// How long the tasks may take to end in order before the server ends without them.
const STOP_WITHIN: Duration = Duration::from_secs(5);
const QUEUE_LENGTH_FILE: &str = "/proc/sys/net/unix/max_dgram_qlen";
/// What a queue should hold so that a host's agents may beat in the same moment, as far as there may be so many: what
/// systemd sets.
const WANTED_QUEUE_LENGTH: usize = 512;

/// The way to a running server: [`Server::bind`], then [`BoundServer::run`].
#[derive(Debug)]
pub struct Server;

/// A server that has all its sockets and has not begun to read them. Dropping it gives them up.
#[derive(Debug)]
pub struct BoundServer {
    config: Config,
    clock: Clock,
    listeners: Vec<UnixListener>,
    metrics: Option<TcpListener>,
}

impl Server {
    /// Takes every socket that the configuration names.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. No socket is left behind.
    pub fn bind(config: Config) -> Result<BoundServer, Error> {
        config.check()?;
        let clock = Clock::start();
        let listeners = config
            .sockets
            .iter()
            .map(|socket| UnixListener::bind(socket, config.allowed.clone()))
            .collect::<Result<Vec<_>, Error>>()?;
        let metrics = config.metrics_addr.map(bind_metrics).transpose()?;
        Ok(BoundServer { config, clock, listeners, metrics })
    }
}

impl BoundServer {
    /// Where metrics are served, with the port that was picked if 0 was asked for.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The Unix sockets.
    pub fn socket_paths(&self) -> impl Iterator<Item = &Path> {
        self.listeners.iter().map(UnixListener::path)
    }

    /// Runs until `shutdown` is ready, then stops in order: listeners take what has arrived, the tracker what they
    /// hand on, sinks what it concludes, and HTTP ends last.
    ///
    /// To be called within a Tokio runtime that has I/O and time enabled.
    ///
    /// # Errors
    ///
    /// When the server could not start, or a part of it ended unasked.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let failed = |action| move |source| Error::Runtime { action, source };
        let metrics_addr = self.metrics_addr();
        let BoundServer { config, clock, listeners, metrics } = self;
        let registry = Registry::new().map_err(|error| Error::Runtime {
            action: "set up metrics",
            source: std::io::Error::other(error),
        })?;
        let queue_length = queue_length();
        if let Some(length) = queue_length {
            registry.gauge(names::UNIX_QUEUE, &[]).set(length as f64);
        }

        let ingest = IngestThread::start().map_err(failed("start the ingest thread"))?;
        let stop_listening = CancellationToken::new();
        let mut tasks = JoinSet::new();

        let (to_inbox, inbox) = mpsc::channel(INBOX_BATCHES);
        let (to_queries, queries) = mpsc::channel(QUERIES);
        let (to_log, log) = mpsc::channel(LOG_QUEUE);
        let frames = FrameCounters::new(&registry, Transport::Unix);
        let mut sockets = Vec::new();
        for listener in listeners {
            sockets.push(listener.unread()?);
            tracing::info!(
                path = %listener.path().display(),
                stall_after_ms = millis(config.policy.stall_after),
                "listening on unix:{}; an agent is stalled after {:?} of silence",
                listener.path().display(),
                config.policy.stall_after
            );
            let task = listener.run(stop_listening.clone(), to_inbox.clone(), clock, frames.clone());
            tasks.spawn_on(async { ("listener", task.await) }, ingest.handle());
        }
        drop(to_inbox);
        if let Some(address) = metrics_addr {
            tracing::info!(%address, "metrics on http://{address}/metrics");
        }
        let wanted = config.policy.max_agents.min(WANTED_QUEUE_LENGTH);
        if let Some(length) = queue_length.filter(|length| *length < wanted) {
            warn_of_short_queue(length, wanted);
        }

        let actor = Actor {
            tracker: Tracker::new(config.policy.clone()),
            processes: ProcFs,
            clock,
            inbox,
            sockets,
            queries,
            sinks: Sinks {
                log: to_log,
                log_dropped: registry.counter(names::SINK_DROPPED, &[("sink", "log")]),
            },
            frames,
            metrics: TrackerMetrics::new(&registry, config.policy.max_agents),
            agent_metrics: config.agent_metrics,
            host: host_name(),
            stall_after: config.policy.stall_after,
        };
        tasks.spawn_on(named("tracker", actor.run()), ingest.handle());
        tasks.spawn(named("log sink", sink::log(log)));

        let stop_http = CancellationToken::new();
        let mut web = JoinSet::new();
        if let Some(listener) = metrics {
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(failed("watch the metrics socket"))?;
            let site = Site {
                queries: to_queries,
                metrics: ServerMetrics::new(&registry),
                token: config.metrics_token,
                clock,
                log_lines_dropped: logging::lines_dropped,
            };
            web.spawn(named("metrics endpoint", http::serve(listener, site, stop_http.clone())));
        }

        let mut result = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = tasks.join_next() => Err(ended_unasked(ended)),
            Some(ended) = web.join_next() => Err(ended_unasked(ended)),
        };
        if result.is_ok() {
            tracing::info!("stopping");
        }
        stop_listening.cancel();
        if tokio::time::timeout(STOP_WITHIN, join_all(&mut tasks, &mut result)).await.is_err() {
            tracing::error!("not all tasks ended within {STOP_WITHIN:?}; ending without them");
        }
        stop_http.cancel();
        // Its own limits end it.
        join_all(&mut web, &mut result).await;
        result
    }
}

/// How a task ended, by the task's name.
type Ended = (&'static str, Result<(), Error>);

/// Gives a name to a task that cannot fail.
async fn named(name: &'static str, task: impl Future<Output = ()>) -> Ended {
    task.await;
    (name, Ok(()))
}

/// Waits for every task; the first error found on the way is kept.
async fn join_all(tasks: &mut JoinSet<Ended>, result: &mut Result<(), Error>) {
    while let Some(ended) = tasks.join_next().await {
        let outcome = match ended {
            Ok((_, outcome)) => outcome,
            Err(_) => Err(ended_unasked(ended)),
        };
        if result.is_ok() {
            *result = outcome;
        }
    }
}

fn ended_unasked(ended: Result<Ended, JoinError>) -> Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => Error::TaskEnded { task, fault: "it thought that it was done".to_owned() },
        Err(error) => Error::TaskEnded { task: "server", fault: error.to_string() },
    }
}

fn bind_metrics(address: SocketAddr) -> Result<TcpListener, Error> {
    let failed = |source| Error::MetricsAddress { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// `net.unix.max_dgram_qlen`, if it can be read.
fn queue_length() -> Option<usize> {
    fs::read_to_string(QUEUE_LENGTH_FILE).ok()?.trim().parse().ok()
}

fn warn_of_short_queue(length: usize, wanted: usize) {
    let fits = length + 1;
    tracing::warn!(
        max_dgram_qlen = length,
        wanted,
        "only {fits} beats fit the socket's queue, those of all agents together; beats that more agents send in the same \
         moment are refused by the kernel. Raise it with `sysctl -w net.unix.max_dgram_qlen={wanted}` and \
         start this server again"
    );
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}
