//! Heartbeats that were sent, and those that were not taken.

use metrics::Counter;

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    HEARTBEATS = "varta_heartbeats_total", "Heartbeats of this server for who watches it, by what became of them.";
}

/// The counters of one kind of destination.
pub(super) struct Outcomes {
    sent: Counter,
    failed: Counter,
    /// Whether the last heartbeat was not taken.
    is_failing: bool,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The first failure after a success.
    Fails,
    /// The first success after a failure.
    WorksAgain,
}

impl Outcomes {
    /// The counters of `destination`. They are registered also where there is none.
    pub(super) fn new(registry: &Registry, destination: &str) -> Self {
        let counter =
            |outcome| registry.counter(HEARTBEATS, &[("destination", destination), ("outcome", outcome)]);
        Outcomes { sent: counter("sent"), failed: counter("failed"), is_failing: false }
    }

    /// Counts what became of a heartbeat.
    pub(super) fn count(&mut self, is_taken: bool) -> Option<Change> {
        let counter = if is_taken { &self.sent } else { &self.failed };
        counter.increment(1);
        let change = match (std::mem::replace(&mut self.is_failing, !is_taken), is_taken) {
            (false, false) => Change::Fails,
            (true, true) => Change::WorksAgain,
            (false, true) | (true, false) => return None,
        };
        Some(change)
    }
}
