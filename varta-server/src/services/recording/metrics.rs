//! Metrics of the recording that is being written.

use metrics::{Counter, Gauge};

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    RECORDING_DROPPED = "varta_recording_dropped_total",
        "Records that are missing in the recording of --record, because the disk was too slow.";
    RECORDING_BYTES = "varta_recording_bytes", "The length of the recording of --record; 0 without one.";
    RECORDING_ACTIVE = "varta_recording_active",
        "1 while what arrives is recorded; 0 without --record, and when that is as long as it may be or failed.";
}

/// The metric handles of the recording.
pub(crate) struct RecordingMetrics {
    pub(super) dropped: Counter,
    pub(super) bytes: Gauge,
    pub(super) active: Gauge,
}

impl RecordingMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        RecordingMetrics {
            dropped: registry.counter(RECORDING_DROPPED, &[]),
            bytes: registry.gauge(RECORDING_BYTES, &[]),
            active: registry.gauge(RECORDING_ACTIVE, &[]),
        }
    }
}
