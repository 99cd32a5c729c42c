//! What is counted of maintenance.

use metrics::{Counter, Gauge};

use crate::metrics::{Registry, family};
use crate::services::maintenance::protocol::Outcome;

/// Pauses, and what was asked for on the control socket.
pub(crate) struct MaintenanceMetrics {
    in_force: Gauge,
    requests: Vec<(Outcome, Counter)>,
}

impl MaintenanceMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let request = |outcome: Outcome| {
            (outcome, registry.counter(family::CONTROL_REQUESTS, &[("outcome", outcome.as_str())]))
        };
        MaintenanceMetrics {
            in_force: registry.gauge(family::PAUSES, &[]),
            requests: Outcome::ALL.map(request).into(),
        }
    }

    /// So many pauses are in force.
    pub(crate) fn in_force(&self, count: usize) {
        self.in_force.set(count as f64);
    }

    /// A request has come to this.
    pub(crate) fn request(&self, outcome: Outcome) {
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
