//! The metrics of maintenance.

use metrics::{Counter, Gauge};

use crate::metrics::Registry;
use crate::metrics::family::families;
use crate::services::maintenance::protocol::ResponseStatus;

families! {
    PAUSES = "varta_pauses", "Pauses in force: each is a pattern, and whose names fit it alarm nobody.";
    CONTROL_REQUESTS = "varta_control_requests_total",
        "Requests on the control socket: done (ok), understood and not done (refused), or not understood (malformed).";
}

/// The gauge of pauses in force, and the counters of control requests by outcome.
pub(crate) struct MaintenanceMetrics {
    in_force: Gauge,
    requests: Vec<(ResponseStatus, Counter)>,
}

impl MaintenanceMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let request = |outcome: ResponseStatus| {
            (outcome, registry.counter(CONTROL_REQUESTS, &[("outcome", outcome.as_str())]))
        };
        MaintenanceMetrics {
            in_force: registry.gauge(PAUSES, &[]),
            requests: ResponseStatus::ALL.map(request).into(),
        }
    }

    /// Sets the number of pauses in force.
    pub(crate) fn in_force(&self, count: usize) {
        self.in_force.set(count as f64);
    }

    /// Counts a request.
    pub(crate) fn request(&self, outcome: ResponseStatus) {
        if let Some((_, counter)) = self.requests.iter().find(|(counted, _)| *counted == outcome) {
            counter.increment(1);
        }
    }
}

impl std::fmt::Debug for MaintenanceMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaintenanceMetrics").finish_non_exhaustive()
    }
}
