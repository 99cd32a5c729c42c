//! Opening of the state database, and what an earlier server left in it.

use std::path::Path;

use rusqlite::Connection;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::files::state_dir::StateDir;
use crate::base::time::WallTime;
use crate::domain::tracker::JobSnapshot;
use crate::ingest::PersistedWindow;
use crate::observe::Boot;
use crate::services::state::instance::{self, Instance, InstanceFile};
use crate::services::state::last_sign::{self, Absence, LastSign, Moment};
use crate::services::state::registry::PersistedAgent;
use crate::services::state::schema::{DatabaseError, FileState, Opened};
use crate::services::state::{jobs, registry, replay_sessions, schema};

/// The state that an earlier server persisted.
#[derive(Debug, Default)]
pub(crate) struct PersistedState {
    /// The agents it knew.
    pub(crate) agents: Vec<PersistedAgent>,
    /// The jobs it knew.
    pub(crate) jobs: Vec<JobSnapshot>,
    /// From its last sign to this server's start, both by the wall clock.
    pub(crate) unseen: Option<(WallTime, WallTime)>,
    /// The windows of its replay table.
    pub(crate) replay_sessions: Vec<PersistedWindow>,
}

/// How much state this server has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) agents: usize,
    pub(crate) replay_sessions: usize,
    pub(crate) jobs: usize,
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
    /// The file that names the database.
    pub(super) instance_file: InstanceFile,
    /// The sign that this server will give.
    pub(super) sign: LastSign,
    /// The time without a server before this one.
    pub(super) absence: Absence,
}

impl StateDatabase {
    /// Reads what an earlier server persisted, as far as there is room.
    ///
    /// A corrupt database is moved aside, and so is a file of another kind where a database of this server was
    /// before; the loss of a database is logged. A database that cannot be read because the disk is full or fails is
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
        let instance_file = InstanceFile::new(directory.path());
        let before = instance_file.read()?;
        let moment = Moment::now(clock, Boot::this());
        let mut was_moved = false;
        let read = match open_and_read(&path, room, &moment) {
            Err(fault) if fault.is_broken(before.is_some()) => {
                move_aside(&path, &fault.to_string()).map_err(|source| Error::StateDirectory {
                    path: path.clone(),
                    action: "move the broken database aside",
                    source,
                })?;
                was_moved = true;
                open_and_read(&path, room, &moment)
            }
            read => read,
        };
        match read {
            Ok(read) => {
                if !was_moved {
                    read.warn(&path, before.as_ref());
                }
                let Read { database, was: _, state, sweep, last_sign, absence } = read;
                let sign = next_sign(last_sign, &moment);
                let database = Some(database);
                Ok((StateDatabase { directory, database, sweep, instance_file, sign, absence }, state))
            }
            Err(DatabaseError::Newer { version }) => Err(Error::NewerState { path, form: "tables", version }),
            Err(fault) if fault.may_pass() => {
                tracing::warn!(
                    target: "varta::state",
                    "{}: cannot be read: {fault}; this server starts without what was known before, and goes on trying",
                    path.display()
                );
                let (sign, absence) = (next_sign(None, &moment), Absence::since(None, &moment));
                let store =
                    StateDatabase { directory, database: None, sweep: 0, instance_file, sign, absence };
                Ok((store, PersistedState::default()))
            }
            Err(DatabaseError::Foreign(fault)) => Err(Error::StateDatabase {
                path,
                fault: format!(
                    "{fault}, and no server has kept its state in this directory before; move the file away, or give this \
                     server another directory"
                ),
            }),
            Err(fault) => Err(Error::StateDatabase { path, fault: fault.to_string() }),
        }
    }
}

/// A database and what was in it.
struct Read {
    database: Connection,
    was: FileState,
    state: PersistedState,
    sweep: i64,
    last_sign: Option<LastSign>,
    absence: Absence,
}

impl Read {
    /// Logs what is lost, and what is wrong with the clocks.
    fn warn(&self, path: &Path, before: Option<&Instance>) {
        let loss = instance::warning(before, self.was, self.last_sign.as_ref());
        for warning in [loss, self.absence.warning()].into_iter().flatten() {
            tracing::warn!(target: "varta::state", "{}: {warning}", path.display());
        }
    }
}

fn open_and_read(path: &Path, room: Limits, moment: &Moment) -> Result<Read, DatabaseError> {
    let Opened { connection: database, was, has_sign } = schema::open(path)?;
    let last_sign = if has_sign { last_sign::read(&database)? } else { None };
    let absence = Absence::since(last_sign.as_ref(), moment);
    let (agents, senseless, sweep) = registry::read(&database, room.agents, &absence)?;
    let (jobs, more_senseless) = jobs::read(&database, room.jobs)?;
    let senseless = senseless + more_senseless;
    let unseen = last_sign.as_ref().map(|sign| (sign.wall, moment.clock.wall));
    let replay_sessions = replay_sessions::read(&database, room.replay_sessions, absence.wall)?;
    if senseless > 0 {
        tracing::warn!(
            target: "varta::state",
            senseless,
            "{}: {senseless} rows make no sense and are passed over",
            path.display()
        );
    }
    Ok(Read {
        database,
        was,
        state: PersistedState { agents, jobs, unseen, replay_sessions },
        sweep,
        last_sign,
        absence,
    })
}

/// The sign of a server that starts at this moment, on a database with this sign of the server before.
fn next_sign(last: Option<LastSign>, moment: &Moment) -> LastSign {
    let (instance, starts) = match last {
        Some(LastSign { instance, starts, .. }) => (instance, starts),
        None => (instance::new_name(), 0),
    };
    let Moment { clock, ref boot, since_boot } = *moment;
    LastSign {
        instance,
        starts: starts.saturating_add(1),
        boot: boot.clone(),
        since_boot,
        wall: clock.wall,
        is_complete: false,
    }
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
