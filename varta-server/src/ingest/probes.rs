//! The probes of all listeners, for those who ask their sockets: listeners come and go.

use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::beat::Transport;
use crate::ingest::queue_probe::Probe;

/// The probes of the listeners that read at present. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes(Arc<RwLock<Vec<Arc<Probe>>>>);

impl Probes {
    /// Adds the probe of a listener that is about to read.
    pub(super) fn add(&self, probe: Arc<Probe>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(probe);
    }

    /// Removes the probe of a listener that has ended.
    pub(super) fn remove(&self, probe: &Arc<Probe>) {
        let mut probes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        probes.retain(|present| !Arc::ptr_eq(present, probe));
    }

    /// Whether a datagram waits at one of the sockets.
    pub(crate) fn have_unread(&self) -> bool {
        self.any(Probe::has_unread)
    }

    /// Whether a datagram waits at a socket of this transport.
    pub(super) fn have_unread_of(&self, transport: Transport) -> bool {
        self.any(|probe| probe.transport() == transport && probe.has_unread())
    }

    /// Hands out the probe of each socket.
    pub(crate) fn each(&self, with: impl FnMut(&Probe)) {
        let probes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        probes.iter().map(AsRef::as_ref).for_each(with);
    }

    fn any(&self, is_it: impl Fn(&Probe) -> bool) -> bool {
        let probes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        probes.iter().any(|probe| is_it(probe))
    }
}
