//! The memory: what is to survive this server, in a SQLite database that people can open with the tool they know.
//!
//! Three tables. The registry has a row for each agent that is known, so that the next server knows who should be there.
//! The history has what was said of agents: the newest 100,000 changes of the last 30 days. The seals are what the replay
//! table knows, so that a recording of what came to this server is refused by the next. All of it is written by a thread
//! of its own, many changes at once and never more than a second late as long as the disk can take them. Nobody waits for
//! the disk: when it is full or broken that is said once and counted, and what did not find its place is made up for
//! later, see [`writer`].

mod directory;
mod history;
mod registry;
mod saving;
mod schema;
mod seals;
mod sweep;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;

use self::directory::Directory;
pub(crate) use self::registry::Kept;
use self::schema::Fault;
pub(crate) use self::writer::Means;
use crate::beat::{Origin, Transport};
use crate::clock::Clock;
use crate::error::Error;
use crate::listener::Seal;
use crate::time::{MonoTime, millis};
use crate::tracker::{Note, Remembered, Transition};

/// Changes that may wait to be written. Each change of verdict is two of them: one for either table.
pub(crate) const STATE_QUEUE: usize = 65_536;

/// What there is to be written.
#[derive(Debug)]
pub(crate) enum Event {
    /// For the history.
    Transition(Box<Transition>),
    /// For the registry.
    Note(Note),
    /// For the registry too.
    Slice(Slice),
    /// Sessions of the replay table.
    Seals(Vec<Seal>),
}

/// A part of all agents, as they are.
#[derive(Debug)]
pub(crate) struct Slice {
    /// The slot number of the first; 0 begins a sweep through all of them.
    pub(crate) from: usize,
    /// The agents.
    pub(crate) agents: Vec<Remembered>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct StateSink {
    pub(crate) queue: mpsc::Sender<Event>,
    pub(crate) dropped: metrics::Counter,
    /// Whether the registry has missed something since its last sweep began.
    lost: Arc<AtomicBool>,
}

impl StateSink {
    /// Hands on a change of verdict; a cheap one only while half of the queue is free.
    pub(crate) fn transition(&self, transition: &Transition, is_cheap: bool) {
        self.put(is_cheap, || Event::Transition(Box::new(transition.clone())));
    }

    /// Hands on what has changed of what is to be remembered.
    pub(crate) fn note(&self, note: Note) {
        let agent = match &note {
            Note::Known(known) => &known.agent,
            Note::Forgotten(agent) => agent,
        };
        let is_cheap = agent.origin.transport() == Transport::Udp;
        if !self.put(is_cheap, || Event::Note(note)) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    fn put(&self, is_cheap: bool, event: impl FnOnce() -> Event) -> bool {
        let has_place = !is_cheap || self.queue.capacity() > self.queue.max_capacity() / 2;
        let taken = has_place && self.queue.try_send(event()).is_ok();
        if !taken {
            self.dropped.increment(1);
        }
        taken
    }
}

/// What a server left behind.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Whom it knew.
    pub(crate) agents: Vec<Kept>,
    /// What the replay table knew.
    pub(crate) seals: Vec<Seal>,
}

/// How much of it there is room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) agents: usize,
    pub(crate) seals: usize,
}

/// The directory of `--state-dir`, taken and read.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    /// `None` when the disk was full or failed at the start: then the writer tries again.
    database: Option<Connection>,
    /// The number of the last sweep.
    sweep: i64,
}

impl Store {
    /// Takes the directory, and reads what the server before this one left there, as far as there is room.
    ///
    /// A database that is broken is moved aside. One that cannot be read because the disk is full or fails is left as it
    /// is; then nothing is known of before.
    ///
    /// # Errors
    ///
    /// When the directory or the file cannot be used at all, see [`Error`].
    pub(crate) fn open(path: &Path, room: Room, clock: Clock) -> Result<(Self, Left), Error> {
        let directory = Directory::open(path)?;
        let path = directory.database();
        let read = match open_and_read(&path, room, clock) {
            Err(Fault::Corrupt(fault)) => {
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
            Ok((database, left, sweep)) => Ok((Store { directory, database: Some(database), sweep }, left)),
            Err(Fault::Newer { version }) => Err(Error::NewerState { path, version }),
            Err(fault) if fault.may_pass() => {
                tracing::warn!(
                    target: "varta::state",
                    "{}: cannot be read: {fault}; this server starts without what was known before, and goes on trying",
                    path.display()
                );
                Ok((Store { directory, database: None, sweep: 0 }, Left::default()))
            }
            Err(fault) => Err(Error::StateDatabase { path, fault: fault.to_string() }),
        }
    }
    /// The directory, for a file beside the database; and what keeps it this server's as long as it is open.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub(crate) fn share(&self) -> Result<(PathBuf, File), Error> {
        let path = self.directory.path().to_path_buf();
        match self.directory.hold() {
            Ok(lock) => Ok((path, lock)),
            Err(source) => Err(Error::StateDirectory { path, action: "share the lock", source }),
        }
    }
}

fn open_and_read(path: &Path, room: Room, clock: Clock) -> Result<(Connection, Left, i64), Fault> {
    let database = schema::open(path)?;
    let wall = Wall::read(clock);
    let (agents, senseless, sweep) = registry::read(&database, room.agents, wall, clock.now())?;
    let seals = seals::read(&database, room.seals, wall)?;
    if senseless > 0 {
        tracing::warn!(
            target: "varta::state",
            senseless,
            "{}: {senseless} rows make no sense and are passed over",
            path.display()
        );
    }
    Ok((database, Left { agents, seals }, sweep))
}

/// Moves a broken database aside, and says so.
fn move_aside(path: &Path, fault: &str) -> std::io::Result<()> {
    let aside = schema::move_aside(path)?;
    tracing::warn!(
        target: "varta::state",
        "{}: is broken ({fault}); it is {} now, and this server begins a new one",
        path.display(),
        aside.display()
    );
    Ok(())
}

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

/// Translates moments of this server into Unix time, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Wall {
    /// The server's start.
    start: i64,
    now: i64,
}

impl Wall {
    /// As the wall clock has it now.
    fn read(clock: Clock) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit")]
        let start = (clock.wall_start_seconds() * 1000.0) as i64;
        let now = start + whole(clock.now().as_nanos() / 1_000_000);
        Wall { start, now }
    }

    fn of(self, at: MonoTime) -> i64 {
        self.start.saturating_add(whole(millis(at.since(MonoTime::START))))
    }
}

/// A number as SQLite can keep it.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where an agent beats from: `local`, `udp 10.0.0.1`, `secure_udp fd00::1`.
fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Local => "local".to_owned(),
        Origin::Udp(address) | Origin::SecureUdp(address) => {
            format!("{} {address}", origin.transport().as_str())
        }
    }
}

#[cfg(test)]
mod tests;
