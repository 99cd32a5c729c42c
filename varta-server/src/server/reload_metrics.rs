//! Whether the configuration that stands in the file is the one that counts.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::Gauge;

use crate::config::ConfigFile;
use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    SUCCESSFUL = "varta_config_last_reload_successful", "1 when the last reload of keys and configuration, or the start, was successful; else 0.";
    SUCCESS_TIME = "varta_config_last_reload_success_timestamp_seconds", "Unix time of the last successful reload of keys and configuration, or of the start.";
    HASH = "varta_config_hash", "Hash of the content of the configuration file that counts; 0 without one.";
}

/// The gauges of the last reload.
#[derive(Debug)]
pub(super) struct ReloadMetrics {
    successful: Gauge,
    success_time: Gauge,
    hash: Gauge,
}

impl ReloadMetrics {
    /// Registers them. The start counts as a reload.
    pub(super) fn new(registry: &Registry, file: Option<&ConfigFile>) -> Self {
        let metrics = ReloadMetrics {
            successful: registry.gauge(SUCCESSFUL, &[]),
            success_time: registry.gauge(SUCCESS_TIME, &[]),
            hash: registry.gauge(HASH, &[]),
        };
        metrics.succeeded(file);
        metrics
    }

    /// Notes a successful reload, by which the content of `file` counts.
    pub(super) fn succeeded(&self, file: Option<&ConfigFile>) {
        self.successful.set(1.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.success_time.set(now.as_secs_f64());
        self.hash.set(file.map_or(0, ConfigFile::hash) as f64);
    }

    /// Notes a reload that changed nothing.
    pub(super) fn failed(&self) {
        self.successful.set(0.0);
    }
}
