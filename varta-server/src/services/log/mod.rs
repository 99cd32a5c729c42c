//! Transitions as log lines.

mod incidents;
pub(crate) mod service;
