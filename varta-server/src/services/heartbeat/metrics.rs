//! Heartbeats that were sent, and those that were not taken.

use metrics::Counter;

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    HEARTBEATS = "varta_heartbeats_total", "Heartbeats of this server for who watches it, by what became of them.";
}

/// The counters of one kind of destination.
#[derive(Clone)]
pub(super) struct Outcomes {
    pub(super) sent: Counter,
    pub(super) failed: Counter,
}

impl Outcomes {
    /// The counters of `destination`. They are registered also where there is none.
    pub(super) fn new(registry: &Registry, destination: &str) -> Self {
        let counter =
            |outcome| registry.counter(HEARTBEATS, &[("destination", destination), ("outcome", outcome)]);
        Outcomes { sent: counter("sent"), failed: counter("failed") }
    }
}
