//! `varta_kernel_drops_total`: datagrams that the kernel dropped because a socket's receive queue was full,
//! read from the sockets at each scrape.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::Counter;

use crate::domain::beat::Transport;
use crate::ingest::metrics::KERNEL_DROPS;
use crate::ingest::queue_probe::Probe;
use crate::metrics::Registry;

/// The drop counters of all sockets, with the value that each socket last reported.
pub(crate) struct KernelDrops {
    probes: Arc<[Probe]>,
    seen: Mutex<Vec<u32>>,
    /// One for each of `probes`, in the same order.
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

    /// Adds what the kernel has dropped since the last call.
    pub(crate) fn publish(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for ((probe, seen), counter) in self.probes.iter().zip(&mut *seen).zip(&self.counters) {
            // A kernel that does not support the call was reported by `new`.
            if let Ok(drops) = probe.kernel_drops() {
                counter.increment(u64::from(drops.wrapping_sub(*seen)));
                *seen = drops;
            }
        }
    }
}
