//! The schema of the database: creation, recognition, migration, and moving a corrupt file aside.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// The version of the schema, in the file's `user_version`.
const VERSION: i64 = 2;
/// `VART`, in the file's `application_id`: a database of another program is never modified.
const APPLICATION: i64 = 0x5641_5254;
/// The longest time for which another process with a lock on the database may delay a write.
const BUSY_FOR: Duration = Duration::from_secs(1);
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
        PRIMARY KEY (origin, pid, twin)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        name TEXT NOT NULL, origin TEXT NOT NULL, pid INTEGER NOT NULL, twin INTEGER NOT NULL, start_time INTEGER,
        was TEXT, became TEXT NOT NULL, cause TEXT NOT NULL, exit_code INTEGER, signal INTEGER, reason TEXT,
        silence_ms INTEGER NOT NULL, latency_us INTEGER,
        status TEXT NOT NULL, payload INTEGER NOT NULL, beats INTEGER NOT NULL,
        dossier TEXT
    ) STRICT;
    CREATE TABLE seals (
        place INTEGER PRIMARY KEY,
        key INTEGER NOT NULL, prefix BLOB NOT NULL, highest INTEGER NOT NULL,
        continued_at INTEGER NOT NULL, nonce INTEGER NOT NULL, start_ms INTEGER NOT NULL,
        heard_ms INTEGER NOT NULL
    ) STRICT;
";

/// Migrates version 1 to version 2.
const FROM_VERSION_1: &str =
    "ALTER TABLE agents ADD COLUMN unit TEXT; ALTER TABLE agents ADD COLUMN labels TEXT;";

/// Why a database cannot be used.
#[derive(Debug)]
pub(super) enum DatabaseError {
    /// A newer server wrote it.
    Newer { version: u64 },
    /// The file is corrupt, or belongs to another program.
    Corrupt(String),
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
            DatabaseError::Newer { .. } | DatabaseError::Corrupt(_) => false,
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

/// Opens the database, or creates it.
pub(super) fn open(path: &Path) -> Result<Connection, DatabaseError> {
    // SQLite would create it readable for others. The files that SQLite adds have the same mode.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(DatabaseError::File)?;
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
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_LIMIT)?;
    match (application, version) {
        (0, 0) if tables == 0 => make(&mut connection)?,
        (APPLICATION, VERSION) => {}
        (APPLICATION, 1) => change(&mut connection, FROM_VERSION_1)?,
        _ => return Err(DatabaseError::Corrupt("it is not a database of varta-server".to_owned())),
    }
    Ok(connection)
}

fn make(connection: &mut Connection) -> Result<(), DatabaseError> {
    change(connection, TABLES)
}

/// Creates or migrates the tables in one transaction.
fn change(connection: &mut Connection, how: &str) -> Result<(), DatabaseError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(how)?;
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
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
