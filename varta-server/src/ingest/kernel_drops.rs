//! `varta_kernel_drops_total`: datagrams that the kernel dropped because a socket's receive queue was full,
//! read from the sockets at each scrape, and from each that is closed.

use metrics::Counter;

use crate::domain::beat::Transport;
use crate::ingest::kernel_queues;
use crate::ingest::metrics::KERNEL_DROPS;
use crate::ingest::probes::Probes;
use crate::metrics::Registry;
use crate::metrics::counters::CounterValue;

/// The drop counters of all sockets, and the sockets. Clones share them.
#[derive(Clone)]
pub(crate) struct KernelDrops {
    probes: Probes,
    /// Indexed by [`Transport::index`].
    counters: [Counter; Transport::ALL.len()],
}

impl KernelDrops {
    pub(crate) fn new(registry: &Registry, probes: Probes) -> Self {
        let counters = Transport::ALL
            .map(|transport| registry.counter(KERNEL_DROPS, &[("transport", transport.as_str())]));
        let mut fault = None;
        probes.each(|probe| fault = fault.take().or(probe.kernel_drops().err()));
        if let Some(error) = fault {
            tracing::warn!(
                target: "varta::ingest",
                "the kernel does not tell what it drops ({error}): varta_kernel_drops_total stays 0"
            );
        }
        KernelDrops { probes, counters }
    }

    /// Whether a family is that of these counters.
    pub(crate) fn is_its(family: &str) -> bool {
        family == KERNEL_DROPS.name
    }

    /// Goes on from the counters of another server, which had these sockets too: what the kernel has dropped there is
    /// counted by this one, and the rest was dropped at sockets that are no more.
    pub(crate) fn resume(&self, former: &[CounterValue]) {
        for transport in Transport::ALL {
            let is_its = |(name, labels, _): &&CounterValue| {
                Self::is_its(name) && labels.iter().any(|(_, value)| value == transport.as_str())
            };
            let counted = former.iter().find(is_its).map_or(0, |(_, _, value)| *value);
            let mut known = 0;
            self.probes.each(|probe| {
                if probe.transport() == transport {
                    known += u64::from(probe.kernel_drops().unwrap_or(0));
                }
            });
            self.counters[transport.index()].increment(counted.saturating_sub(known));
        }
    }

    /// Adds what the kernel has dropped since the last call.
    pub(crate) fn publish(&self) {
        self.probes.each(|probe| {
            self.counters[probe.transport().index()].increment(u64::from(probe.take_drops()));
        });
    }

    /// The paths of the sockets that have one, and the addresses of the others.
    pub(crate) fn places(&self) -> (Vec<String>, Vec<String>) {
        let (mut paths, mut addresses) = (Vec::new(), Vec::new());
        self.probes.each(|probe| {
            let endpoint = probe.endpoint();
            paths.extend(endpoint.path().map(|path| path.to_string_lossy().into_owned()));
            addresses.extend(endpoint.address().map(|address| address.to_string()));
        });
        (paths, addresses)
    }

    /// The rows of the queues of the sockets, in the text format of Prometheus.
    pub(crate) fn queue_rows(&self) -> String {
        kernel_queues::rows(&self.probes)
    }
}

impl std::fmt::Debug for KernelDrops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelDrops").finish_non_exhaustive()
    }
}
