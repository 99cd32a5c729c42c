//! What the server says of itself for a check-up, `varta-server doctor`.

use std::path::PathBuf;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

use crate::base::peers::Peers;
use crate::base::time::millis;
use crate::domain::tracker::{AgentId, Loss, Pace};
use crate::engine::review::review;
use crate::ingest::kernel_drops::KernelDrops;
use crate::services::maintenance::acks::AckService;
use crate::services::maintenance::pauses::Pauses;
use crate::services::maintenance::status::StatusDesk;

/// What is known besides the status.
#[derive(Debug)]
pub(super) struct ServerFacts {
    pub(super) metrics: PrometheusHandle,
    pub(super) kernel_drops: KernelDrops,
    pub(super) peers: Peers,
    pub(super) state_dir: Option<PathBuf>,
}

impl StatusDesk {
    /// The status with what a check-up needs besides; `None` when the server stops.
    pub(super) async fn examine(&self, pauses: &Pauses, acks: &AckService) -> Option<Value> {
        let mut report = self.report(pauses, acks).await?;
        let review = review(&self.queries).await?;
        let ServerFacts { metrics, kernel_drops, peers, state_dir } = &self.facts;
        kernel_drops.publish();
        let shown = |agent: &AgentId| match agent.shown_pid() {
            Some(pid) => format!("{}[{pid}]", agent.name),
            None => agent.name.to_string(),
        };
        let pace = |(agent, pace): &(AgentId, Pace)| {
            let Pace { interval, stall_after } = *pace;
            json!({ "agent": shown(agent), "interval_ms": millis(interval), "stall_after_ms": millis(stall_after) })
        };
        let loss = |(agent, loss): &(AgentId, Loss)| json!({ "agent": shown(agent), "lost": loss.lost, "beats": loss.beats });
        // The agents in alarm are for the status.
        report["alarms"] = json!([]);
        report["uid"] = json!(nix::unistd::geteuid().as_raw());
        report["state_dir"] = json!(state_dir.as_ref().map(|path| path.to_string_lossy()));
        report["alertmanagers"] = json!(peers.of("alertmanagers"));
        let (unix, udp) = kernel_drops.places();
        report["sockets"] = json!({ "unix": unix, "udp": udp });
        report["metrics"] = json!(metrics.render() + &kernel_drops.queue_rows());
        report["seldom"] = json!({
            "count": review.seldom.count, "first": review.seldom.first.iter().map(pace).collect::<Vec<_>>(),
        });
        report["lossy"] = json!({
            "count": review.lossy.count, "first": review.lossy.first.iter().map(loss).collect::<Vec<_>>(),
        });
        Some(report)
    }
}
