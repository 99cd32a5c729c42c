//! Recordings: what the tracker was told, and when, in a file; and what another policy would have made of it.
//!
//! While a recording is made the actor puts what it hands to the tracker into a queue, and a thread of its own writes it.
//! It waits for nobody: what finds no place is counted, and the recording says where. To replay one is to hand the same to
//! a tracker with another policy; the tracker knows no difference.

mod decode;
mod encode;
mod format;
mod quantiles;
mod reader;
mod recorder;
mod replay;
mod report;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;

pub(crate) use self::format::{Header, Record};
pub(crate) use self::recorder::{Recorder, Witness};
pub use self::replay::{Replay, replay};
pub use self::report::Report;
pub(crate) use self::writer::{RecordingFile, RecordingMetrics};

/// What is to be recorded, where, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// The file, which must not be there yet.
    pub path: PathBuf,
    /// The most that it may have, in bytes.
    pub limit: u64,
}

impl RecordOptions {
    /// The most that a recording has if nobody says otherwise: four million beats.
    pub const DEFAULT_LIMIT: u64 = 256 << 20;
    /// The least that it can be limited to.
    pub const SMALLEST_LIMIT: u64 = 4_096;
}
