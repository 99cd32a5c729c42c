//! Recordings: what the tracker was told, and when, in a file; and what another policy would have made of it.
//!
//! While a recording is made the actor puts what it hands to the tracker into a queue, and a thread of its own writes it.
//! It waits for nobody: what finds no place is counted, and the recording says where. To replay one is to hand the same to
//! a tracker with another policy; the tracker knows no difference.

mod command;
mod decode;
mod encode;
mod findings;
mod format;
pub(in crate::services) mod metrics;
mod options;
mod quantiles;
mod reader;
mod replay;
mod report;
pub(crate) mod service;
#[cfg(test)]
mod tests;
mod writer;

pub use self::command::{RecordingTask, ReplayArgs};
pub use self::options::{RecordOptions, RecordingArgs};
pub use self::replay::{Replay, replay};
pub use self::report::Report;
