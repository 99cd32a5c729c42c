//! The memory: what is to survive this server, in a SQLite database that people can open with the tool they know.
//!
//! Three tables. The registry has a row for each agent that is known, so that the next server knows who should be there.
//! The history has what was said of agents: the newest 100,000 changes of the last 30 days. The seals are what the replay
//! table knows, so that a recording of what came to this server is refused by the next. All of it is written by a thread
//! of its own, many changes at once and never more than a second late as long as the disk can take them. Nobody waits for
//! the disk: when it is full or broken that is said once and counted, and what did not find its place is made up for
//! later, see `writer`.

mod database;
mod encode;
mod history;
pub(in crate::services) mod metrics;
mod options;
mod progress;
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
