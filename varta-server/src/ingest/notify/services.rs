//! The services of all sockets for notifications: a service may speak through any of them.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::io::unix::AsyncFd;

use crate::base::time::MonoTime;
use crate::ingest::notify::bridge::{Bridge, Fate};
use crate::ingest::notify::kin::KernelKin;
use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    SERVICES = "varta_notify_services", "Services that speak sd_notify(3) and whose main process is there.";
    MAIN_PIDS_REFUSED = "varta_notify_main_pid_refused_total",
        "Notifications that named a main process (MAINPID) of another user, or one that is no kin of who sent them.";
}

/// All services. Clones share them.
#[derive(Clone)]
pub(crate) struct NotifyServices(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    services: Gauge,
    refused: Counter,
}

#[derive(Debug, Default)]
struct State {
    /// Made with the first socket: who has none pays nothing.
    bridge: Option<Bridge<KernelKin>>,
    /// What was known before that.
    known: Vec<(u32, Option<Duration>)>,
}

impl fmt::Debug for NotifyServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyServices").finish_non_exhaustive()
    }
}

impl NotifyServices {
    pub(crate) fn new(registry: &Registry) -> Self {
        let (services, refused) = (registry.gauge(SERVICES, &[]), registry.counter(MAIN_PIDS_REFUSED, &[]));
        NotifyServices(Arc::new(Inner { state: Mutex::default(), services, refused }))
    }

    /// Takes over services that were known before this server started, each by its main process and the time within
    /// which its keep-alives are awaited.
    pub(crate) fn know(&self, services: Vec<(u32, Option<Duration>)>, now: MonoTime) {
        let mut state = self.lock();
        match &mut state.bridge {
            Some(bridge) => {
                services.into_iter().for_each(|(pid, within)| bridge.know(pid, within, now));
                self.publish(bridge);
            }
            None => state.known = services,
        }
    }

    /// Makes ready for a socket. Returns what is readable when a process has ended. Must be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// Descriptors are short.
    pub(super) fn open(&self, now: MonoTime) -> io::Result<AsyncFd<OwnedFd>> {
        let mut state = self.lock();
        if state.bridge.is_none() {
            let mut bridge = Bridge::new(KernelKin::new()?);
            state.known.drain(..).for_each(|(pid, within)| bridge.know(pid, within, now));
            self.publish(&mut bridge);
            state.bridge = Some(bridge);
        }
        let kin = state.bridge.as_mut().map(Bridge::kin);
        kin.map_or_else(|| Err(io::ErrorKind::NotFound.into()), |kin| kin.ends())
    }

    /// Works with the services, and publishes what has changed.
    pub(super) fn with(&self, work: impl FnOnce(&mut Bridge<KernelKin>) -> Vec<Fate>) -> Vec<Fate> {
        let mut state = self.lock();
        let Some(bridge) = &mut state.bridge else { return Vec::new() };
        let fates = work(bridge);
        self.publish(bridge);
        fates
    }

    /// When processes that may be tools are decided on.
    pub(super) fn next_due(&self) -> Option<MonoTime> {
        self.lock().bridge.as_ref()?.next_due()
    }

    fn publish(&self, bridge: &mut Bridge<KernelKin>) {
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        self.0.services.set(bridge.len() as f64);
        self.0.refused.increment(bridge.take_refused_main_pids());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
