//! The listeners of a server, which a reload adds and removes while the others read on.

mod bound;
pub(super) mod reader;
pub(crate) mod reload;
mod tasks;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::bound::{Bound, Parts, Wanted};
use self::tasks::Starting;
pub(crate) use self::tasks::{ListenerTasks, Surroundings};
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::held_socket::HeldSocket;
use crate::ingest::kernel_drops::KernelDrops;
use crate::ingest::kernel_queues::warn_if_small;
use crate::ingest::keyring::Keyring;
use crate::ingest::notify::NotifyServices;
use crate::ingest::options::IngestOptions;
use crate::ingest::probes::Probes;
use crate::ingest::queue_probe::Probe;
use crate::ingest::senders::AllowedSenders;
use crate::ingest::shm::ShmPages;
use crate::ingest::socket_access;
use crate::metrics::Registry;

/// The listeners that wait to be started by a reload.
const STARTS: usize = 16;

/// The listeners before they read. A drop releases their sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    set: ListenerSet,
    bound: Vec<Bound>,
    starts: mpsc::Receiver<Starting>,
}

/// The listeners that read. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ListenerSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    present: Mutex<Vec<Arc<Present>>>,
    starts: mpsc::Sender<Starting>,
    parts: Parts,
    allowed: watch::Sender<AllowedSenders>,
    /// The receive buffer that UDP sockets are to have, in bytes.
    receive_buffer: Mutex<usize>,
    probes: Probes,
    kernel_drops: KernelDrops,
    stop: CancellationToken,
}

/// A listener that reads.
#[derive(Debug)]
struct Present {
    wanted: Wanted,
    probe: Arc<Probe>,
    /// The files of a Unix socket: its own, and that of the check socket beside it.
    files: Vec<HeldSocket>,
    /// Ends its tasks.
    stop: CancellationToken,
    /// One for each of its tasks, cancelled when the task has ended.
    ended: Vec<CancellationToken>,
}

impl Listeners {
    /// Binds the sockets on which agents beat, or takes given ones: Unix sockets first. `stop` ends all of them.
    ///
    /// # Errors
    ///
    /// The first that cannot be had. No socket is left behind.
    pub(crate) fn bind(
        options: &IngestOptions,
        pages: &ShmPages,
        keyring: &Keyring,
        given: &GivenSockets,
        registry: &Registry,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let (allowed, changes) = watch::channel(options.allowed.clone());
        let (pages, keyring, given) = (pages.clone(), keyring.clone(), given.clone());
        let services = NotifyServices::new(registry);
        let parts = Parts { pages, keyring, allowed: changes, services, given };
        let bind = |wanted| parts.bind(wanted, options.socket_queue);
        let bound = Wanted::all(options).map(bind).collect::<Result<Vec<_>, Error>>()?;
        let probes = Probes::default();
        bound.iter().for_each(|bound| probes.add(Arc::clone(&bound.probe)));
        let (to_starts, starts) = mpsc::channel(STARTS);
        let set = ListenerSet(Arc::new(Inner {
            present: Mutex::default(),
            starts: to_starts,
            parts,
            allowed,
            receive_buffer: Mutex::new(options.udp_receive_buffer),
            kernel_drops: KernelDrops::new(registry, probes.clone()),
            probes,
            stop: stop.clone(),
        }));
        for bound in &bound {
            set.present().push(Arc::new(Present::of(bound, stop)));
        }
        Ok(Listeners { set, bound, starts })
    }

    /// The paths of the Unix sockets.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.bound.iter().filter_map(|bound| match bound.listener.endpoint() {
            Endpoint::Unix(path) => Some(path.as_path()),
            Endpoint::Udp(_) | Endpoint::SecureUdp(_) | Endpoint::Notify(_) => None,
        })
    }

    /// The addresses of the UDP sockets.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.bound.iter().filter_map(|bound| bound.listener.endpoint().address())
    }

    /// The set that they are.
    pub(crate) fn set(&self) -> &ListenerSet {
        &self.set
    }

    /// Logs where they are, what is wrong with that, and by what agents are judged: `stall_after`, and how many there
    /// may be.
    pub(crate) fn announce(&self, options: &IngestOptions, stall_after: Duration, max_agents: usize) {
        for bound in &self.bound {
            reload::log_endpoint(bound.listener.endpoint(), stall_after);
        }
        socket_access::warn(self.paths(), &options.allowed);
        let probes = self.bound.iter().map(|bound| &*bound.probe);
        warn_if_small(probes, max_agents, options.udp_receive_buffer);
        if options.allow_plaintext_remote {
            reload::warn_of_plaintext();
        }
    }

    /// Has them read, and gives the task that keeps them. Must be called within a Tokio runtime.
    pub(crate) fn start(self, surroundings: Surroundings) -> ListenerTasks {
        let Listeners { set, bound, starts } = self;
        let mut tasks = ListenerTasks::new(surroundings, starts);
        let present = set.present().clone();
        for (bound, present) in bound.into_iter().zip(&present) {
            tasks.begin(present.starting(bound, &set.0.parts));
        }
        tasks
    }
}

impl ListenerSet {
    /// The probes of the listeners that read at present.
    pub(crate) fn probes(&self) -> &Probes {
        &self.0.probes
    }

    /// The services that speak sd_notify(3).
    pub(crate) fn services(&self) -> &NotifyServices {
        &self.0.parts.services
    }

    /// What counts the datagrams that the kernel drops.
    pub(crate) fn kernel_drops(&self) -> &KernelDrops {
        &self.0.kernel_drops
    }

    /// The paths of the present Unix sockets.
    fn paths(&self) -> Vec<PathBuf> {
        let path = |present: &Arc<Present>| match &present.wanted {
            Wanted::Unix(options) => Some(options.path.clone()),
            Wanted::Udp(_) | Wanted::SecureUdp(_) | Wanted::Notify(_) | Wanted::NotifyName(_) => None,
        };
        self.present().iter().filter_map(path).collect()
    }

    fn present(&self) -> MutexGuard<'_, Vec<Arc<Present>>> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn of(bound: &Bound, stop: &CancellationToken) -> Self {
        let files: Vec<_> = bound.listener.file().into_iter().chain(bound.check_file()).cloned().collect();
        let tasks = 1 + usize::from(bound.check.is_some());
        Present {
            wanted: bound.wanted.clone(),
            probe: Arc::clone(&bound.probe),
            files,
            stop: stop.child_token(),
            ended: (0..tasks).map(|_| CancellationToken::new()).collect(),
        }
    }

    fn starting(&self, bound: Bound, parts: &Parts) -> Starting {
        Starting { bound, stop: self.stop.clone(), ended: self.ended.clone(), parts: parts.clone() }
    }
}
