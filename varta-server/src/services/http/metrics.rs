//! Metrics of the server itself, and the rendering of all families that are not of single agents.

use std::time::Duration;

use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::base::version::{COMMIT, VERSION};
use crate::ingest::kernel_drops::KernelDrops;
use crate::metrics::family::families;
use crate::metrics::{Registry, in_order};
use crate::services::http::process::ProcessMetrics;
use crate::services::http::tls::CERTIFICATE_EXPIRY;

families! {
    UPTIME = "varta_watch_uptime_seconds", "Time since this server started.";
    BUILD_INFO = "varta_build_info", "1, with version and commit of this server.";
    LOG_DROPPED = "varta_log_lines_dropped_total", "Log lines dropped because standard error was too slow.";
    AGENT_ROWS_OMITTED = "varta_agent_rows_omitted", "Agents without rows of their own in this scrape, or with that of varta_stalls_total only (--agent-metrics).";
}

/// The metric handles of the server.
pub(crate) struct ServerMetrics {
    uptime: Gauge,
    omitted: Gauge,
    log_dropped: Counter,
    certificate_expiry: Gauge,
    kernel_drops: KernelDrops,
    process: ProcessMetrics,
    handle: PrometheusHandle,
}

impl ServerMetrics {
    pub(crate) fn new(registry: &Registry, kernel_drops: KernelDrops) -> Self {
        let version = [("version", VERSION), ("commit", COMMIT)];
        registry.gauge(BUILD_INFO, &version).set(1.0);
        ServerMetrics {
            uptime: registry.gauge(UPTIME, &[]),
            omitted: registry.gauge(AGENT_ROWS_OMITTED, &[]),
            log_dropped: registry.counter(LOG_DROPPED, &[]),
            certificate_expiry: registry.gauge(CERTIFICATE_EXPIRY, &[]),
            kernel_drops,
            process: ProcessMetrics::new(),
            handle: registry.handle(),
        }
    }

    /// Renders the families of the process, and all that the exporter keeps.
    /// `certificate_expiry` is in seconds of Unix time.
    pub(crate) fn render(
        &self,
        uptime: Duration,
        omitted: usize,
        log_lines_dropped: u64,
        certificate_expiry: f64,
    ) -> String {
        self.uptime.set(uptime.as_secs_f64());
        self.omitted.set(omitted as f64);
        self.log_dropped.absolute(log_lines_dropped);
        self.certificate_expiry.set(certificate_expiry);
        self.kernel_drops.publish();
        self.process.render() + &in_order(&(self.handle.render() + &self.kernel_drops.queue_rows()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Probes;

    #[test]
    fn families_come_in_the_order_of_their_names_with_the_figures_of_the_scrape() {
        let registry = Registry::for_test();
        let kernel_drops = KernelDrops::new(&registry, Probes::default());
        let metrics = ServerMetrics::new(&registry, kernel_drops);
        let text = metrics.render(Duration::from_millis(1_500), 3, 7, 2e9);
        for row in [
            "varta_watch_uptime_seconds 1.5",
            "varta_agent_rows_omitted 3",
            "varta_log_lines_dropped_total 7",
            "varta_tls_certificate_expiry_timestamp_seconds 2000000000",
            "varta_kernel_drops_total{transport=\"udp\"} 0",
        ] {
            assert!(text.lines().any(|line| line == row), "{row} is missing in\n{text}");
        }
        let names: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        assert!(names.len() >= FAMILIES.len() && names.is_sorted(), "{text}");
    }
}
