//! Sizes of the kernel's receive queues: their rows in the metrics, and warnings where one is too small.

use std::fmt::Write as _;

use crate::ingest::metrics::{UDP_RECEIVE_BUFFER, UNIX_QUEUE};
use crate::ingest::probes::Probes;
use crate::ingest::queue_probe::Probe;
use crate::metrics::family::Family;

/// The length of a Unix socket's queue, in datagrams, from which on no warning is logged: the value that
/// systemd sets. A host's agents may all beat at the same moment.
const WANTED_UNIX_QUEUE: usize = 512;

/// The rows of the queues, in the text format of Prometheus: listeners come and go, and the exporter keeps what
/// it has. No family where there is no such socket.
pub(super) fn rows(probes: &Probes) -> String {
    let mut shortest: Option<usize> = None;
    let mut udp = Vec::new();
    probes.each(|probe| {
        shortest = shortest.into_iter().chain(probe.unix_queue()).min();
        if let (Some(address), Some(bytes)) = (probe.endpoint().address(), probe.udp_queue()) {
            udp.push(format!("{{address=\"{address}\"}} {bytes}"));
        }
    });
    let unix = shortest.map(|length| format!(" {}", length.saturating_sub(1)));
    gauge(UDP_RECEIVE_BUFFER, udp) + &gauge(UNIX_QUEUE, unix)
}

/// A family with these labels and values; nothing without any.
fn gauge(family: Family, rows: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for row in rows {
        if text.is_empty() {
            // A write to a string cannot fail.
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {0} gauge", family.name, family.help);
        }
        let _ = writeln!(text, "{}{row}", family.name);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// Logs a warning for each queue that is too small for `max_agents` agents or smaller than the `wanted_udp` bytes.
pub(crate) fn warn_if_small<'p>(
    probes: impl IntoIterator<Item = &'p Probe>,
    max_agents: usize,
    wanted_udp: usize,
) {
    let wanted = max_agents.min(WANTED_UNIX_QUEUE);
    let mut shortest: Option<usize> = None;
    for probe in probes {
        shortest = shortest.into_iter().chain(probe.unix_queue()).min();
        if let (Some(address), Some(bytes)) = (probe.endpoint().address(), probe.udp_queue())
            && bytes < wanted_udp / 2 * 2
        {
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
    if let Some(fits) = shortest.filter(|fits| *fits < wanted) {
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
}
