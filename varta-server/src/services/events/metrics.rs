//! What the file of events counts.

use metrics::Counter;

use crate::metrics::{Registry, family};

/// The value of the metric label `sink`.
pub(super) const SINK: &str = "events";

/// The counters. They are registered also without a file.
pub(super) struct EventsMetrics {
    pub(super) write_errors: Counter,
    pub(super) dropped: Counter,
}

impl EventsMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        EventsMetrics {
            write_errors: registry.counter(family::EVENTS_WRITE_ERRORS, &[]),
            dropped: registry.counter(family::SINK_DROPPED, &[("sink", SINK)]),
        }
    }
}
