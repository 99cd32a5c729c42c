//! Messages that the service manager did not take.

use metrics::Counter;

use crate::engine::metrics::SINK_DROPPED;
use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    NOTIFY_FAILURES = "varta_notify_failures_total", "Messages that the service manager (NOTIFY_SOCKET) did not take.";
}

/// The value of the metric label `sink`.
pub(super) const SINK: &str = "systemd";

/// The counter of messages that were not taken. It and the row of the subscription are registered also without
/// a service manager.
pub(super) fn failures(registry: &Registry) -> Counter {
    let _dropped = registry.counter(SINK_DROPPED, &[("sink", SINK)]);
    registry.counter(NOTIFY_FAILURES, &[])
}
