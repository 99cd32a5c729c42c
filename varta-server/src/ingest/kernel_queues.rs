//! Sizes of the kernel's receive queues: published as gauges, with a warning at the start where one is too
//! small.

use std::net::SocketAddr;

use crate::ingest::listener::Listener;
use crate::ingest::metrics::{UDP_RECEIVE_BUFFER, UNIX_QUEUE};
use crate::metrics::Registry;

/// The length of a Unix socket's queue, in datagrams, from which on no warning is logged: the value that
/// systemd sets. A host's agents may all beat at the same moment.
const WANTED_UNIX_QUEUE: usize = 512;

/// The queue sizes that the kernel grants.
pub(crate) struct KernelQueues {
    /// The datagrams that the shortest queue of a Unix socket holds; `None` without Unix sockets or where it is
    /// not known.
    unix: Option<usize>,
    /// Address and receive buffer of each UDP socket, in bytes.
    udp: Vec<(SocketAddr, usize)>,
}

impl KernelQueues {
    /// Reads the queue sizes, and publishes them.
    pub(crate) fn measure(listeners: &[Listener], registry: &Registry) -> Self {
        let unix = listeners.iter().filter_map(Listener::unix_queue).min();
        let udp = listeners.iter().filter_map(Listener::udp_queue).collect();
        let queues = KernelQueues { unix, udp };
        if let Some(length) = queues.unix {
            registry.gauge(UNIX_QUEUE, &[]).set(length.saturating_sub(1) as f64);
        }
        for (address, bytes) in &queues.udp {
            let labels = [("address", &*address.to_string())];
            registry.gauge(UDP_RECEIVE_BUFFER, &labels).set(*bytes as f64);
        }
        queues
    }

    /// Logs a warning for each queue that is too small for `max_agents` agents or smaller than the
    /// `wanted_udp` bytes.
    pub(crate) fn warn_if_small(&self, max_agents: usize, wanted_udp: usize) {
        let wanted = max_agents.min(WANTED_UNIX_QUEUE);
        if let Some(fits) = self.unix.filter(|fits| *fits < wanted) {
            tracing::warn!(
                target: "varta::ingest",
                max_dgram_qlen = fits.saturating_sub(1),
                wanted,
                "only {fits} beats fit the socket's queue, those of all agents together; beats that more agents send in the \
                 same moment are refused by the kernel. Give this server CAP_SYS_ADMIN for a queue of its own \
                 (--socket-queue), or raise that of the host with `sysctl -w net.unix.max_dgram_qlen={wanted}`, and start it \
                 again"
            );
        }
        for (address, bytes) in self.udp.iter().filter(|(_, bytes)| *bytes < wanted_udp / 2 * 2) {
            tracing::warn!(
                target: "varta::ingest",
                %address,
                granted = bytes,
                wanted = wanted_udp,
                "only {bytes} bytes of datagrams fit the queue of {address}; beats that find it full are lost, and counted \
                 in varta_kernel_drops_total. Raise it with `sysctl -w net.core.rmem_max={}` or give this server \
                 CAP_NET_ADMIN, and start it again; or ask for less with --udp-receive-buffer",
                wanted_udp / 2
            );
        }
    }
}
