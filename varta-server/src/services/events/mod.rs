//! The events file: every transition as a line of JSON, for log shippers and scripts.
//!
//! A subscriber like the log, on a thread of its own, so that a slow or full disk delays nothing else.
//! docs/EVENTS.md describes the fields.

mod event_record;
pub(in crate::services) mod metrics;
mod options;
pub(crate) mod service;
#[cfg(test)]
mod tests;
mod writer;

pub use self::options::{EventsArgs, EventsOptions};
