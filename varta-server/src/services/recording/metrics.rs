use metrics::{Counter, Gauge};

use crate::metrics::{Registry, family};

/// What is told of a recording.
pub(crate) struct RecordingMetrics {
    pub(super) dropped: Counter,
    pub(super) bytes: Gauge,
    pub(super) active: Gauge,
}

impl RecordingMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        RecordingMetrics {
            dropped: registry.counter(family::RECORDING_DROPPED, &[]),
            bytes: registry.gauge(family::RECORDING_BYTES, &[]),
            active: registry.gauge(family::RECORDING_ACTIVE, &[]),
        }
    }
}
