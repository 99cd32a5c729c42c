//! The log service: every transition as a line of the log, with a limit on what agents can cause at any rate.

mod incidents;
pub(crate) mod service;
