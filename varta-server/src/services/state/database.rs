//! Opening of the state database, and what an earlier server left in it.

use std::path::Path;

use rusqlite::Connection;

use crate::base::clock::{Clock, WallClock};
use crate::base::error::Error;
use crate::base::files::state_dir::StateDir;
use crate::ingest::PersistedWindow;
use crate::services::state::registry::PersistedAgent;
use crate::services::state::schema::DatabaseError;
use crate::services::state::{registry, replay_sessions, schema};

/// The state that an earlier server persisted.
#[derive(Debug, Default)]
pub(crate) struct PersistedState {
    /// The agents it knew.
    pub(crate) agents: Vec<PersistedAgent>,
    /// The windows of its replay table.
    pub(crate) replay_sessions: Vec<PersistedWindow>,
}

/// How much state this server has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) agents: usize,
    pub(crate) replay_sessions: usize,
}

/// The file name of the database in the directory of `--state-dir`.
pub(super) const DATABASE: &str = "varta.db";

/// The open state database in its locked directory.
#[derive(Debug)]
pub(crate) struct StateDatabase {
    pub(super) directory: StateDir,
    /// `None` when the disk was full or failed at the start; the writer tries again.
    pub(super) database: Option<Connection>,
    /// The number of the last sweep.
    pub(super) sweep: i64,
}

impl StateDatabase {
    /// Reads what an earlier server persisted, as far as there is room.
    ///
    /// A corrupt database is moved aside. A database that cannot be read because the disk is full or fails is
    /// left alone, and the server starts without earlier state.
    ///
    /// # Errors
    ///
    /// The directory or the file cannot be used at all, see [`Error`].
    pub(crate) fn open(
        directory: StateDir,
        room: Limits,
        clock: Clock,
    ) -> Result<(Self, PersistedState), Error> {
        let path = directory.path().join(DATABASE);
        let read = match open_and_read(&path, room, clock) {
            Err(DatabaseError::Corrupt(fault)) => {
                move_aside(&path, &fault).map_err(|source| Error::StateDirectory {
                    path: path.clone(),
                    action: "move the broken database aside",
                    source,
                })?;
                open_and_read(&path, room, clock)
            }
            read => read,
        };
        match read {
            Ok((database, left, sweep)) => {
                Ok((StateDatabase { directory, database: Some(database), sweep }, left))
            }
            Err(DatabaseError::Newer { version }) => Err(Error::NewerState { path, form: "tables", version }),
            Err(fault) if fault.may_pass() => {
                tracing::warn!(
                    target: "varta::state",
                    "{}: cannot be read: {fault}; this server starts without what was known before, and goes on trying",
                    path.display()
                );
                Ok((StateDatabase { directory, database: None, sweep: 0 }, PersistedState::default()))
            }
            Err(fault) => Err(Error::StateDatabase { path, fault: fault.to_string() }),
        }
    }
}

fn open_and_read(
    path: &Path,
    room: Limits,
    clock: Clock,
) -> Result<(Connection, PersistedState, i64), DatabaseError> {
    let database = schema::open(path)?;
    let wall = WallClock::read(clock);
    let (agents, senseless, sweep) = registry::read(&database, room.agents, wall, clock.now())?;
    let seals = replay_sessions::read(&database, room.replay_sessions, wall)?;
    if senseless > 0 {
        tracing::warn!(
            target: "varta::state",
            senseless,
            "{}: {senseless} rows make no sense and are passed over",
            path.display()
        );
    }
    Ok((database, PersistedState { agents, replay_sessions: seals }, sweep))
}

/// Moves a corrupt database aside, and logs that.
pub(super) fn move_aside(path: &Path, fault: &str) -> std::io::Result<()> {
    let aside = schema::move_aside(path)?;
    tracing::warn!(
        target: "varta::state",
        "{}: is broken ({fault}); it is {} now, and this server begins a new one",
        path.display(),
        aside.display()
    );
    Ok(())
}
