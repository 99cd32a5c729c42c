//! The schema of the database: creation, recognition, migration, and moving a corrupt file aside.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::base::files::regular_file::{self, OpenFault, Symlink};

/// The version of the schema, in the file's `user_version`.
const VERSION: i64 = 6;
/// `VART`, in the file's `application_id`: a database of another program is never modified.
const APPLICATION: i64 = 0x5641_5254;
/// The longest time for which another process with a lock on the database may delay a write.
pub(super) const BUSY_FOR: Duration = Duration::from_secs(1);
/// The size to which the write-ahead log is truncated after it was larger, in bytes.
const JOURNAL_LIMIT: i64 = 16 << 20;

const TABLES: &str = "
    CREATE TABLE agents (
        origin TEXT NOT NULL, pid INTEGER NOT NULL, twin INTEGER NOT NULL,
        name TEXT NOT NULL, name_source TEXT NOT NULL,
        port INTEGER NOT NULL, key INTEGER,
        start_time INTEGER, boot TEXT,
        verdict TEXT NOT NULL, status TEXT NOT NULL, payload INTEGER NOT NULL, terminal INTEGER NOT NULL,
        beats INTEGER NOT NULL, lost INTEGER NOT NULL, stalls INTEGER NOT NULL,
        asked_us INTEGER, busy_until_ms INTEGER,
        last_beat_ms INTEGER NOT NULL, first_seen_ms INTEGER NOT NULL,
        sweep INTEGER NOT NULL,
        unit TEXT, labels TEXT,
        silent_at_least INTEGER NOT NULL DEFAULT 0,
        is_unawaited INTEGER NOT NULL DEFAULT 0, said TEXT,
        stood_ms INTEGER,
        PRIMARY KEY (origin, pid, twin)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        name TEXT NOT NULL, origin TEXT NOT NULL, pid INTEGER NOT NULL, twin INTEGER NOT NULL, start_time INTEGER,
        was TEXT, became TEXT NOT NULL, cause TEXT NOT NULL, exit_code INTEGER, signal INTEGER, reason TEXT,
        silence_ms INTEGER NOT NULL, latency_us INTEGER,
        status TEXT NOT NULL, payload INTEGER NOT NULL, beats INTEGER NOT NULL,
        dossier TEXT,
        silent_at_least INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE seals (
        place INTEGER PRIMARY KEY,
        key INTEGER NOT NULL, prefix BLOB NOT NULL, highest INTEGER NOT NULL,
        continued_at INTEGER NOT NULL, nonce INTEGER NOT NULL, start_ms INTEGER NOT NULL,
        heard_ms INTEGER NOT NULL
    ) STRICT;
";

/// The table that version 3 added.
const TABLE_OF_SERVER: &str = "
    CREATE TABLE server (
        only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
        instance TEXT NOT NULL, starts INTEGER NOT NULL,
        boot TEXT, since_boot_ms INTEGER,
        wall_ms INTEGER NOT NULL,
        is_complete INTEGER NOT NULL
    ) STRICT;
";

/// The table that version 5 added.
const TABLE_OF_JOBS: &str = "
    CREATE TABLE jobs (name TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Migrates version 1 to version 2.
const FROM_VERSION_1: &str =
    "ALTER TABLE agents ADD COLUMN unit TEXT; ALTER TABLE agents ADD COLUMN labels TEXT;";
/// Migrates version 2 to version 3, together with [`TABLE_OF_SERVER`].
const FROM_VERSION_2: &str = "
    ALTER TABLE agents ADD COLUMN silent_at_least INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE history ADD COLUMN silent_at_least INTEGER NOT NULL DEFAULT 0;
";
/// Migrates version 3 to version 4.
const FROM_VERSION_3: &str = "
    ALTER TABLE agents ADD COLUMN is_unawaited INTEGER NOT NULL DEFAULT 0; ALTER TABLE agents ADD COLUMN said TEXT;
";
/// Migrates version 5 to version 6.
const FROM_VERSION_5: &str = "ALTER TABLE agents ADD COLUMN stood_ms INTEGER;";
/// What makes the tables of each version, from the first on, into those of the next.
const MIGRATIONS: [&[&str]; 5] = [
    &[FROM_VERSION_1],
    &[FROM_VERSION_2, TABLE_OF_SERVER],
    &[FROM_VERSION_3],
    &[TABLE_OF_JOBS],
    &[FROM_VERSION_5],
];
/// The first bytes of a database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Why a database cannot be used.
#[derive(Debug)]
pub(super) enum DatabaseError {
    /// A newer server wrote it.
    Newer { version: u64 },
    /// The file is corrupt.
    Corrupt(String),
    /// The file is no database, or that of another program.
    Foreign(&'static str),
    /// There is something else than a file.
    NotAFile,
    /// The file cannot be created.
    File(io::Error),
    /// SQLite reports an error.
    Sqlite(rusqlite::Error),
}

impl DatabaseError {
    /// Whether it may be otherwise later, without anybody changing the configuration.
    pub(super) fn may_pass(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            DatabaseError::File(error) => matches!(error.kind(), StorageFull | QuotaExceeded),
            DatabaseError::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                )
            ),
            DatabaseError::Newer { .. }
            | DatabaseError::Corrupt(_)
            | DatabaseError::Foreign(_)
            | DatabaseError::NotAFile => false,
        }
    }
}

impl DatabaseError {
    /// Whether the file is to be moved aside, where a database of this server was in its place before.
    pub(super) fn is_broken(&self, was_ours: bool) -> bool {
        match self {
            DatabaseError::Corrupt(_) => true,
            DatabaseError::Foreign(_) => was_ours,
            DatabaseError::Newer { .. }
            | DatabaseError::NotAFile
            | DatabaseError::File(_)
            | DatabaseError::Sqlite(_) => false,
        }
    }
}

impl std::fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseError::Newer { version } => {
                write!(f, "a newer varta-server wrote it (version {version} of its tables)")
            }
            DatabaseError::Corrupt(fault) => f.write_str(fault),
            DatabaseError::Foreign(fault) => f.write_str(fault),
            DatabaseError::NotAFile => f.write_str("it is not a regular file"),
            DatabaseError::File(error) => error.fmt(f),
            DatabaseError::Sqlite(error) => error.fmt(f),
        }
    }
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        if is_corrupt(&error) {
            DatabaseError::Corrupt(error.to_string())
        } else {
            DatabaseError::Sqlite(error)
        }
    }
}

/// Whether an error means that the file itself is corrupt.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// What was there when a database was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// A database.
    Present,
    /// No file.
    Missing,
    /// A file without content.
    Empty,
}

/// An open database.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// What it was before. A file that is not [`FileState::Present`] has new tables.
    pub(super) was: FileState,
    /// Whether there is the table `server`: not in a database of an earlier version, before [`migrate`].
    pub(super) has_sign: bool,
}

/// Creates the file if it is missing, and checks that it is a database, or empty.
fn examine(path: &Path) -> Result<FileState, DatabaseError> {
    let is_missing = path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    // SQLite would create it readable for others. The files that SQLite adds have the same mode.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let opened = regular_file::open(&mut options, path, Symlink::Refused);
    let (file, _) = opened.map_err(|fault| match fault {
        OpenFault::NotAFile => DatabaseError::NotAFile,
        fault @ (OpenFault::Io(_) | OpenFault::Symlink) => DatabaseError::File(fault.into()),
    })?;
    // SQLite opens these by itself, and would wait for the other end of a pipe. Only this user and root can put
    // anything there.
    for suffix in ["-journal", "-wal", "-shm"] {
        check_companion(&with_suffix(path, suffix)).map_err(DatabaseError::File)?;
    }
    let mut start = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(DatabaseError::File)?;
    match &*start {
        _ if is_missing => Ok(FileState::Missing),
        [] => Ok(FileState::Empty),
        start if start == MAGIC => Ok(FileState::Present),
        _ => Err(DatabaseError::Foreign("it is not an SQLite database")),
    }
}

/// Opens the database, or creates it.
pub(super) fn open(path: &Path) -> Result<Opened, DatabaseError> {
    let was = examine(path)?;
    let has_journal = with_suffix(path, "-wal").exists();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_FOR)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // A database that is refused stays as it is: a journal that a crash left is not written back into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_journal)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))?;
    if application == APPLICATION && version > VERSION {
        return Err(DatabaseError::Newer { version: version.unsigned_abs() });
    }
    let is_new = (application, version, tables) == (0, 0, 0);
    let is_ours = application == APPLICATION && version >= 1;
    if !(is_new || is_ours) {
        return Err(DatabaseError::Foreign("it is not a database of varta-server"));
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_LIMIT)?;
    if !is_new {
        return Ok(Opened { connection, was: FileState::Present, has_sign: version >= 3 });
    }
    change(&mut connection, &[TABLES, TABLE_OF_SERVER, TABLE_OF_JOBS])?;
    // A database in which nothing was ever made has no content either.
    let was = if was == FileState::Missing { was } else { FileState::Empty };
    Ok(Opened { connection, was, has_sign: true })
}

/// Refuses what is in the place of a file of SQLite's and is no regular file.
fn check_companion(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => {
            let fault = format!("{} is not a regular file", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, fault))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Migrates the tables of an earlier version. This is for the first write and not for [`open`]: a server that
/// cannot start for another reason leaves the database as it is.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), DatabaseError> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    let before = usize::try_from(version).ok().and_then(|version| version.checked_sub(1));
    match before.and_then(|before| MIGRATIONS.get(before..)) {
        Some(steps) if !steps.is_empty() => change(connection, &steps.concat()),
        Some(_) | None => Ok(()),
    }
}

/// Creates or migrates the tables in one transaction.
fn change(connection: &mut Connection, steps: &[&str]) -> Result<(), DatabaseError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&steps.concat())?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Moves a corrupt database aside, replacing an earlier one, and returns its new path. The database must not
/// be open.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = with_suffix(path, ".corrupt");
    fs::rename(path, &aside)?;
    // Its journal moves along: a new database must not find the journal of the old one.
    for suffix in ["-wal", "-shm"] {
        let to = with_suffix(&aside, suffix);
        match fs::rename(with_suffix(path, suffix), &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_file(to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            },
            result => result?,
        }
    }
    Ok(aside)
}

/// A file whose name is that of the database with something behind it.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
