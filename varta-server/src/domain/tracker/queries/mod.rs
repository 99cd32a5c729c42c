//! What the tracker answers: figures, the status of agents, active alerts. No query changes anything.

mod active_alerts;
mod deadline;
pub(super) mod jobs;
mod metrics;
pub(super) mod review;
mod status;
