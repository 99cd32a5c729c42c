use metrics::Counter;

use crate::base::clock::Clock;
use crate::engine::metrics::SINK_DROPPED;
use crate::metrics::Registry;
use crate::metrics::family::families;
use crate::services::events::service::EventsFile;

families! {
    EVENTS_WRITE_ERRORS = "varta_events_write_errors_total", "Failures to write to the file of --events-file.";
}

/// What the thread needs beside the file.
pub(crate) struct EventsMeans {
    pub(super) clock: Clock,
    /// The name of this host.
    pub(super) host: String,
    pub(super) write_errors: Counter,
    pub(super) dropped: Counter,
}

impl EventsMeans {
    /// Registers the counters, so that they are there without a file too.
    pub(crate) fn new(registry: &Registry, clock: Clock, host: String) -> Self {
        let write_errors = registry.counter(EVENTS_WRITE_ERRORS, &[]);
        let dropped = registry.counter(SINK_DROPPED, &[("sink", EventsFile::SINK)]);
        EventsMeans { clock, host, write_errors, dropped }
    }
}
