//! What the tracker answers: figures, the status of agents, active alerts. No query changes anything.

mod active_alerts;
mod deadline;
mod metrics;
mod status;
