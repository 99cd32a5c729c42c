//! The server as a whole: binds its sockets and files, runs the services, and shuts them down in order.

mod families;
mod handover;
mod reload_metrics;
mod reloader;
mod running;

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::Path;

use tokio::sync::mpsc;

use self::families::families;
use self::handover::Predecessor;
pub use self::handover::Program;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::config::Config;
use crate::domain::tracker::Policy;
use crate::engine::handover::HandoverRequest;
use crate::engine::query::Query;
use crate::engine::task::QUERIES;
use crate::ingest::listeners::Listeners;
use crate::ingest::{Keyring, ShmPages};
use crate::metrics::Registry;
use crate::observe::descriptor_limit::{DescriptorShares, raise_descriptor_limit};
use crate::services::context::{Context, ReloadRequest, Reloader};
use crate::services::{self, Services};

/// The requests to reload that wait while one is carried out.
const RELOADS: usize = 4;

/// The requests to hand over that wait while one is carried out.
const HANDOVERS: usize = 4;

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
    services: Prepared,
    reloads: mpsc::Receiver<ReloadRequest>,
    handovers: mpsc::Receiver<HandoverRequest>,
    /// The server that this one takes over from.
    predecessor: Option<Predecessor>,
    program: Option<Program>,
}

/// The services before they run.
#[derive(Debug)]
enum Prepared {
    /// With their files and sockets.
    Open(Box<Services>),
    /// The server before this one has their files until it ends.
    Later(Box<services::Options>),
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
    pub fn bind_or_take(config: Config, given: GivenSockets) -> Result<BoundServer, Error> {
        config.check()?;
        Self::prepare(config, given, None)
    }

    /// Takes over from the server that runs with the same control socket. That one serves until this one
    /// [runs](BoundServer::run).
    ///
    /// # Errors
    ///
    /// No server is there, it does not hand over to this version, or the first failure as for
    /// [`bind`](Server::bind). The other server goes on.
    pub fn take_over(config: Config, given: GivenSockets) -> Result<BoundServer, Error> {
        config.check()?;
        let predecessor = Predecessor::connect(&config, &given)?;
        let link = predecessor.link();
        Self::prepare(config, given, Some(predecessor)).inspect_err(|error| handover::refuse(&link, error))
    }

    /// Binds and opens what a checked configuration names.
    fn prepare(
        mut config: Config,
        given: GivenSockets,
        mut predecessor: Option<Predecessor>,
    ) -> Result<BoundServer, Error> {
        let clock = predecessor.as_ref().map_or_else(Clock::start, Predecessor::clock);
        let Policy { max_agents, .. } = config.policy;
        let longest = config.policy.longest_stall_after();
        let known = predecessor.as_ref().map(Predecessor::fingerprints).unwrap_or_default();
        let keyring = Keyring::read(&config.ingest.keys, max_agents, longest, known)?;
        let descriptors = raise_descriptor_limit()
            .map(DescriptorShares::of)
            .map_err(|source| Error::Runtime { action: "raise the limit of open files", source })?;
        let lock = predecessor.as_mut().and_then(Predecessor::take_lock);
        let state_dir = config.services.state.take_over_directory(lock)?;
        let registry = Registry::new(families())
            .map_err(|error| Error::Runtime { action: "set up metrics", source: io::Error::other(error) })?;
        let (to_queries, queries) = mpsc::channel(QUERIES);
        let (to_reloads, reloads) = mpsc::channel(RELOADS);
        let (to_handovers, handovers) = mpsc::channel(HANDOVERS);
        let reloader = Reloader::new(to_reloads);
        let mut context = Context::new(clock, registry, to_queries, reloader, state_dir, descriptors, given);
        context.handovers = to_handovers;
        let pages = ShmPages::new(config.ingest.max_shm_agents, clock, &context.registry);
        let options = mem::take(&mut config.services);
        let bind_sockets = || {
            let (given, registry, stop) = (&context.given, &context.registry, &context.stop);
            Listeners::bind(&config.ingest, &pages, &keyring, given, registry, stop)
        };
        let (services, listeners) = if predecessor.is_some() {
            context.given.files().keep(true);
            (Prepared::Later(Box::new(options)), bind_sockets()?)
        } else {
            let (services, listeners) =
                Services::open(options, &context, &config.policy, &keyring, bind_sockets)?;
            context.given.check_all_taken()?;
            context.given.store().close_returned();
            context.is_alone.cancel();
            (Prepared::Open(Box::new(services)), listeners)
        };
        Ok(BoundServer {
            config,
            context,
            listeners,
            keyring,
            pages,
            queries,
            services,
            reloads,
            handovers,
            predecessor,
            program: None,
        })
    }
}

impl BoundServer {
    /// The address of the metrics endpoint, with the port that the kernel chose if 0 was configured.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        match &self.services {
            Prepared::Open(services) => services.http.address(),
            Prepared::Later(options) => options.http.address,
        }
    }

    /// The program that the server starts when it is asked for an upgrade; without one it refuses.
    #[must_use]
    pub fn upgrade_by(self, program: Program) -> Self {
        BoundServer { program: Some(program), ..self }
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
}
