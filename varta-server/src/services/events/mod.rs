//! The file of events: every change of verdict as a line of JSON, for log shippers and scripts.
//!
//! A sink like the log, on a thread of its own, so that no slow or full disk stands in anybody's way. What its lines hold is in
//! docs/EVENTS.md.

mod event_record;
pub(in crate::services) mod metrics;
mod options;
pub(crate) mod service;
#[cfg(test)]
mod tests;
mod writer;

pub use self::options::{EventsArgs, EventsOptions};
