//! The log service: every transition as a line of the log, within limits on what agents can cause.

mod incidents;
mod limits;
pub(in crate::services) mod metrics;
mod names;
pub(crate) mod service;
