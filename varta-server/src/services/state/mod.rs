//! Persistent state in a SQLite database, which standard tools can read.
//!
//! Four tables survive a restart. `agents` is the registry: one row for each known agent, so that the next
//! server knows which agents to expect. `history` holds the newest 100,000 transitions of the last 30 days.
//! `seals` holds the windows of the replay table, so that the next server refuses replays of what this one
//! accepted. `server` is the last sign of the server, by which the next one knows how long there was none. A
//! thread of its own writes in batches, at most a second late while the disk accepts writes. The
//! engine never waits for the disk: a failure is logged once and counted, and what was dropped is made up for
//! later, see `writer`.

mod database;
mod encode;
mod files;
mod history;
mod history_limit;
mod instance;
mod jobs;
mod last_sign;
pub(in crate::services) mod metrics;
mod options;
mod place;
mod progress;
mod reader;
mod reconcile;
mod registry;
mod replay_checkpoint;
mod replay_sessions;
mod restore;
mod schema;
pub(crate) mod service;
#[cfg(test)]
mod tests;
mod writer;

pub use self::options::{StateArgs, StateOptions};
pub(crate) use self::reader::{
    HistoryFilter, HistoryReader, HistoryRow, HistoryRows, HistoryStep, HistorySteps,
};
