//! The memory: what is to survive this server, in a SQLite database that people can open with the tool they know.
//!
//! Three tables. The registry has a row for each agent that is known, so that the next server knows who should be there.
//! The history has what was said of agents: the newest 100,000 changes of the last 30 days. The seals are what the replay
//! table knows, so that a recording of what came to this server is refused by the next. All of it is written by a thread
//! of its own, many changes at once and never more than a second late as long as the disk can take them. Nobody waits for
//! the disk: when it is full or broken that is said once and counted, and what did not find its place is made up for
//! later, see [`writer`].

pub(crate) mod database;
mod encode;
mod history;
pub(crate) mod metrics;
mod progress;
mod reconcile;
mod registry;
mod replay_checkpoint;
mod replay_sessions;
pub(crate) mod restore;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use rusqlite::ErrorCode;

use self::schema::Fault;
pub(crate) use self::writer::Means;

impl Fault {
    /// Whether it may be otherwise later, without anybody changing the configuration.
    fn may_pass(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Fault::File(error) => matches!(error.kind(), StorageFull | QuotaExceeded),
            Fault::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                )
            ),
            Fault::Newer { .. } | Fault::Corrupt(_) => false,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Newer { version } => {
                write!(f, "a newer varta-server wrote it (version {version} of its tables)")
            }
            Fault::Corrupt(fault) => f.write_str(fault),
            Fault::File(error) => error.fmt(f),
            Fault::Sqlite(error) => error.fmt(f),
        }
    }
}
