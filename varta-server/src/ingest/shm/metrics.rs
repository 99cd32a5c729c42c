//! Metrics of the shared memory pages.

use metrics::{Counter, Gauge};

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    SHM_PAGES = "varta_shm_pages", "Pages of memory that agents share with this server.";
    SHM_CAPACITY = "varta_shm_capacity", "Pages for which there is room (--max-shm-agents).";
    SHM_REFUSED = "varta_shm_refused_total",
        "Pages of memory that were not taken, by reason; their agents go on by datagrams.";
}

/// The number of mapped pages, and the refused ones by reason.
pub(crate) struct PageMetrics {
    capacity: Gauge,
    pages: Gauge,
    refused: Vec<(&'static str, Counter)>,
}

impl PageMetrics {
    /// Registers the gauge and a counter for each reason.
    pub(crate) fn new(
        registry: &Registry,
        most: usize,
        reasons: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let counter = |reason| (reason, registry.counter(SHM_REFUSED, &[("reason", reason)]));
        let capacity = registry.gauge(SHM_CAPACITY, &[]);
        capacity.set(most as f64);
        PageMetrics {
            capacity,
            pages: registry.gauge(SHM_PAGES, &[]),
            refused: reasons.into_iter().map(counter).collect(),
        }
    }

    pub(crate) fn capacity(&self, most: usize) {
        self.capacity.set(most as f64);
    }

    pub(crate) fn pages(&self, count: usize) {
        self.pages.set(count as f64);
    }

    pub(crate) fn refused(&self, reason: &str) {
        if let Some((_, counter)) = self.refused.iter().find(|(name, _)| *name == reason) {
            counter.increment(1);
        }
    }
}

impl std::fmt::Debug for PageMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageMetrics").finish_non_exhaustive()
    }
}
