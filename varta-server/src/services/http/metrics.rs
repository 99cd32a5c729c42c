use std::time::Duration;

use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::ingest::kernel_drops::KernelDrops;
use crate::metrics::{Registry, family, in_order};

/// What the server reports of itself.
pub(crate) struct ServerMetrics {
    uptime: Gauge,
    omitted: Gauge,
    log_dropped: Counter,
    kernel_drops: KernelDrops,
    handle: PrometheusHandle,
}

impl ServerMetrics {
    pub(crate) fn new(registry: &Registry, kernel_drops: KernelDrops) -> Self {
        let version = [("version", crate::base::version::VERSION), ("commit", crate::base::version::COMMIT)];
        registry.gauge(family::BUILD_INFO, &version).set(1.0);
        ServerMetrics {
            uptime: registry.gauge(family::UPTIME, &[]),
            omitted: registry.gauge(family::AGENT_ROWS_OMITTED, &[]),
            log_dropped: registry.counter(family::LOG_DROPPED, &[]),
            kernel_drops,
            handle: registry.handle(),
        }
    }

    /// Renders all families that the exporter keeps.
    pub(crate) fn render(&self, uptime: Duration, omitted: usize, log_lines_dropped: u64) -> String {
        self.uptime.set(uptime.as_secs_f64());
        self.omitted.set(omitted as f64);
        self.log_dropped.absolute(log_lines_dropped);
        self.kernel_drops.publish();
        in_order(&self.handle.render())
    }
}
