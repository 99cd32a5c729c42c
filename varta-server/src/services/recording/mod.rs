//! Recordings of the tracker's inputs, and replays that show what another policy would have made of them.
//!
//! During a recording the engine queues every input of the tracker, and a thread of its own writes them. The
//! engine never waits: inputs that do not fit are counted, and the recording shows the gap. A replay feeds
//! the recorded inputs to a tracker with another policy, which behaves exactly as in a server.

mod command;
mod decode;
mod encode;
mod findings;
mod format;
pub(in crate::services) mod metrics;
mod options;
mod plot;
mod plot_data;
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
