//! What the kernel threw away because a socket's queue was full: asked of the sockets when somebody wants to know.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::Counter;

use crate::domain::beat::Transport;
use crate::ingest::metrics::KERNEL_DROPS;
use crate::ingest::queue_probe::Probe;
use crate::metrics::Registry;

/// The sockets, and how much each had lost when it was last asked.
pub(crate) struct KernelDrops {
    probes: Arc<[Probe]>,
    seen: Mutex<Vec<u32>>,
    /// For each socket.
    counters: Vec<Counter>,
}

impl KernelDrops {
    pub(crate) fn new(registry: &Registry, probes: Arc<[Probe]>) -> Self {
        let all = Transport::ALL
            .map(|transport| registry.counter(KERNEL_DROPS, &[("transport", transport.as_str())]));
        let counters = probes.iter().map(|probe| all[probe.transport().index()].clone()).collect();
        if let Some(Err(error)) = probes.first().map(Probe::kernel_drops) {
            tracing::warn!(
                target: "varta::ingest",
                "the kernel does not tell what it drops ({error}): varta_kernel_drops_total stays 0"
            );
        }
        let seen = Mutex::new(vec![0; probes.len()]);
        KernelDrops { probes, seen, counters }
    }

    /// Brings the counters up to date.
    pub(crate) fn publish(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for ((probe, seen), counter) in self.probes.iter().zip(&mut *seen).zip(&self.counters) {
            // That it fails was said at the start.
            if let Ok(drops) = probe.kernel_drops() {
                counter.increment(u64::from(drops.wrapping_sub(*seen)));
                *seen = drops;
            }
        }
    }
}
