//! What the state database counts.

use metrics::Counter;

use crate::engine::metrics::SINK_DROPPED;
use crate::metrics::Registry;
use crate::metrics::family::families;
use crate::metrics::faults::Faults;

families! {
    STATE_WRITE_ERRORS = "varta_state_write_errors_total", "Failures to write to the directory of --state-dir.";
}

/// The counters. They are registered also without a state directory.
#[derive(Debug)]
pub(super) struct StateMetrics {
    pub(super) write_errors: Counter,
    pub(super) dropped: Counter,
    pub(super) faults: Faults,
}

impl StateMetrics {
    pub(super) fn new(registry: &Registry, faults: Faults) -> Self {
        StateMetrics {
            write_errors: registry.counter(STATE_WRITE_ERRORS, &[]),
            dropped: registry.counter(SINK_DROPPED, &[("sink", "state")]),
            faults,
        }
    }
}
