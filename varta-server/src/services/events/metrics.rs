//! What the file of events counts.

use metrics::Counter;

use crate::engine::metrics::SINK_DROPPED;
use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    EVENTS_WRITE_ERRORS = "varta_events_write_errors_total", "Failures to write to the file of --events-file.";
}

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
            write_errors: registry.counter(EVENTS_WRITE_ERRORS, &[]),
            dropped: registry.counter(SINK_DROPPED, &[("sink", SINK)]),
        }
    }
}
