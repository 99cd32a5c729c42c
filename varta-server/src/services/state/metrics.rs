//! What the state database counts.

use metrics::Counter;

use crate::metrics::{Registry, family};

/// The counters. They are registered also without a state directory.
#[derive(Debug)]
pub(super) struct StateMetrics {
    pub(super) write_errors: Counter,
    pub(super) dropped: Counter,
}

impl StateMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        StateMetrics {
            write_errors: registry.counter(family::STATE_WRITE_ERRORS, &[]),
            dropped: registry.counter(family::SINK_DROPPED, &[("sink", "state")]),
        }
    }
}
