//! The server as a whole: binds its sockets and files, runs the services, and shuts them down in order.

mod families;
mod reload_metrics;
mod reloader;

use std::future::Future;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::Path;

use tokio::sync::mpsc;

use self::families::families;
use self::reload_metrics::ReloadMetrics;
use self::reloader::ReloadTask;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::config::Config;
use crate::domain::beat::Transport;
use crate::domain::tracker::{Policy, Tracker};
use crate::engine::metrics::TrackerMetrics;
use crate::engine::query::Query;
use crate::engine::reload::Reload;
use crate::engine::subscribers::Subscribers;
use crate::engine::task::{QUERIES, TrackerActor};
use crate::engine::thread::IngestThread;
use crate::engine::{ProcessMonitor, Recorder};
use crate::ingest::listener::INBOX_BATCHES;
use crate::ingest::listeners::{Listeners, Surroundings};
use crate::ingest::metrics::FrameCounters;
use crate::ingest::{Keyring, ShmPages};
use crate::metrics::Registry;
use crate::metrics::agent_rows::AutoRows;
use crate::observe::ProcReader;
use crate::observe::descriptor_limit::{DescriptorShares, raise_descriptor_limit};
use crate::observe::exit_watcher::ExitWatcher;
use crate::observe::hierarchy::Hierarchies;
use crate::observe::oom::OomWatch;
use crate::observe::sampler::Sampler;
use crate::services::context::{Context, ReloadRequest, Reloader};
use crate::services::{ForTracker, Services};

/// The requests to reload that wait while one is carried out.
const RELOADS: usize = 4;

/// The entry point: [`Server::bind`], then [`BoundServer::run`].
#[derive(Debug)]
pub struct Server;

/// A server that has bound its sockets and does not read them yet. A drop releases them.
#[derive(Debug)]
pub struct BoundServer {
    config: Config,
    context: Context,
    listeners: Listeners,
    keyring: Keyring,
    pages: ShmPages,
    queries: mpsc::Receiver<Query>,
    services: Services,
    reloads: mpsc::Receiver<ReloadRequest>,
}

impl Server {
    /// Binds every socket and opens every file of the configuration.
    ///
    /// # Errors
    ///
    /// The first failure. No socket is left behind.
    pub fn bind(config: Config) -> Result<BoundServer, Error> {
        Self::bind_or_take(config, GivenSockets::default())
    }

    /// The same with sockets that were bound before: each is used where an option names its address.
    ///
    /// # Errors
    ///
    /// The first failure, among them that no option names one of the given sockets.
    pub fn bind_or_take(mut config: Config, given: GivenSockets) -> Result<BoundServer, Error> {
        config.check()?;
        let clock = Clock::start();
        let Policy { max_agents, .. } = config.policy;
        let longest = config.policy.longest_stall_after();
        let keyring = Keyring::read(&config.ingest.keys, max_agents, longest)?;
        let descriptors = raise_descriptor_limit()
            .map(DescriptorShares::of)
            .map_err(|source| Error::Runtime { action: "raise the limit of open files", source })?;
        let state_dir = config.services.state.open_directory()?;
        let registry = Registry::new(families()).map_err(|error| Error::Runtime {
            action: "set up metrics",
            source: std::io::Error::other(error),
        })?;
        let (to_queries, queries) = mpsc::channel(QUERIES);
        let (to_reloads, reloads) = mpsc::channel(RELOADS);
        let reloader = Reloader::new(to_reloads);
        let context = Context::new(clock, registry, to_queries, reloader, state_dir, descriptors, given);
        let pages = ShmPages::new(config.ingest.max_shm_agents, clock, &context.registry);
        let options = mem::take(&mut config.services);
        let bind_sockets = || {
            let (given, registry, stop) = (&context.given, &context.registry, &context.stop);
            Listeners::bind(&config.ingest, &pages, &keyring, given, registry, stop)
        };
        let (services, listeners) =
            Services::open(options, &context, &config.policy, &keyring, bind_sockets)?;
        context.given.check_all_taken()?;
        Ok(BoundServer { config, context, listeners, keyring, pages, queries, services, reloads })
    }
}

impl BoundServer {
    /// The address of the metrics endpoint, with the port that the kernel chose if 0 was configured.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.services.http.address()
    }

    /// The paths of the Unix sockets.
    pub fn socket_paths(&self) -> impl Iterator<Item = &Path> {
        self.listeners.paths()
    }

    /// The addresses of the UDP sockets, plain and secure, with the ports that the kernel chose if 0 was
    /// configured.
    pub fn udp_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.addresses()
    }

    /// The handle that reloads files while the server runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.context.reloads.clone()
    }

    /// What reloads them.
    fn reload_task(&self) -> ReloadTask {
        ReloadTask {
            keyring: self.keyring.clone(),
            keys: self.config.ingest.keys.clone(),
            listeners: self.listeners.set().clone(),
            policy: self.config.policy.clone(),
            file: self.config.file.clone(),
            engine: Reload::new(self.config.policy.max_agents, self.context.queries.clone()),
            services: self.services.reload(),
            faults: self.context.faults.clone(),
            metrics: ReloadMetrics::new(&self.context.registry, self.config.file.as_ref()),
        }
    }

    /// Runs until `shutdown` is ready, then stops in order: listeners drain their sockets, the tracker its
    /// inbox, the services their queues, and HTTP ends last.
    ///
    /// Must be called within a Tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// A failure to start, or a task that ended by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let failed = |action| move |source| Error::Runtime { action, source };
        let reload = self.reload_task();
        let BoundServer { config, mut context, listeners, keyring: _, pages, queries, services, reloads } =
            self;
        let clock = context.clock;
        let ingest = IngestThread::start().map_err(failed("start the ingest thread"))?;
        let (to_inbox, inbox) = mpsc::channel(INBOX_BATCHES);
        let frames = Transport::ALL.map(|transport| FrameCounters::new(&context.registry, transport));
        let (sockets, kernel_drops) =
            (listeners.set().probes().clone(), listeners.set().kernel_drops().clone());
        let surroundings = Surroundings {
            ingest: ingest.handle().clone(),
            inbox: to_inbox.clone(),
            clock,
            frames: frames.clone(),
            watcher: context.watcher.clone(),
            faults: context.faults.clone(),
        };
        listeners.announce(&config.ingest, config.policy.stall_after, config.policy.max_agents);
        context.spawn("listeners", listeners.start(surroundings).run(context.stop.clone()));
        let counters = frames[Transport::Shm.index()].clone();
        let poll = pages.clone().run(context.stop.clone(), to_inbox.clone(), sockets.clone(), counters);
        context.spawn_on(ingest.handle(), "poll of shared pages", poll);
        drop(to_inbox);

        let mut tracker = Tracker::new(config.policy.clone());
        let ForTracker { state, recorder } = services.start(&mut context, &mut tracker, kernel_drops)?;
        let process_monitor = start_process_monitor(&ingest, clock, context.descriptors, recorder)
            .map_err(failed("watch processes"))?;
        let actor = TrackerActor {
            tracker,
            process_monitor,
            clock,
            inbox,
            sockets,
            pages,
            queries,
            sinks: Subscribers { feeds: context.take_subscribers(), state },
            frames,
            metrics: TrackerMetrics::new(&context.registry, config.policy.max_agents),
            auto_rows: AutoRows::default(),
            host: context.host.to_string(),
            stall_after: config.policy.stall_after,
        };
        context.spawn_on(ingest.handle(), "tracker", actor.run());
        context.spawn("reload", reload.run(reloads, context.stop.clone()));
        context.run_until(shutdown).await
    }
}

/// Starts the process monitor on the ingest thread.
fn start_process_monitor(
    ingest: &IngestThread,
    clock: Clock,
    descriptors: DescriptorShares,
    recorder: Recorder,
) -> io::Result<ProcessMonitor> {
    // Descriptors are registered with the entered runtime.
    let _entered = ingest.handle().enter();
    let watcher = ExitWatcher::new(clock, descriptors.watched)?;
    let oom = OomWatch::new(Hierarchies::find(), descriptors.kill_counts);
    let (sampler, answers) = Sampler::start(clock, ProcReader::find())?;
    Ok(ProcessMonitor::new(watcher, oom, sampler, answers, recorder))
}
