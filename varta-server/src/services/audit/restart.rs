//! The decision to begin a new audit log in the place of one that cannot be continued: the old one is moved aside
//! and kept, and the new one says by whom that was decided, and why.

use std::fs::{self, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::base::clock::wall_now;
use crate::base::error::Error;
use crate::base::files::append_log::rotated;
use crate::base::files::directory::sync_directory_of;
use crate::base::files::lock::try_lock;
use crate::base::files::regular_file::{self, Symlink};
use crate::base::time::rfc3339;
use crate::services::audit::head::head_path;
use crate::services::audit::log::AuditLog;
use crate::services::audit::options::AuditOptions;
use crate::services::audit::record::RESTARTED;
use crate::services::audit::verify::{Files, verify};

/// The most characters of a reason.
const MAX_REASON_LEN: usize = 500;

/// The reason for a new log, as a person gives it.
///
/// # Errors
///
/// It is empty, longer than 500 characters, or has a control character.
pub(super) fn parse_reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > MAX_REASON_LEN || text.chars().any(char::is_control) {
        return Err(format!("is empty, longer than {MAX_REASON_LEN} characters, or has a control character"));
    }
    Ok(text.trim().to_owned())
}

/// Moves the log at `path`, its head and its older files aside, and begins a new one. A running server whose log
/// was unusable goes on with it. Returns the name of the file that was moved aside.
///
/// # Errors
///
/// There is no log, a server writes to it, or the system refuses something. A call that was interrupted is
/// completed by the next one.
pub(super) fn restart(path: &Path, key_file: Option<&Path>, why: &str) -> Result<PathBuf, Error> {
    let failed = |action: &str, error: &io::Error| Error::file(path, format!("cannot {action}: {error}"));
    let head = head_path(path);
    let older = rotated(path).map_err(|error| failed("look for its older files", &error))?;
    let present = [path, &head].map(|file| fs::symlink_metadata(file).ok());
    let Some(owner) = present.iter().flatten().next() else {
        return Err(Error::file(path, "there is no audit log; the server begins one when it is started"));
    };
    let _lock = present[1].as_ref().map(|_| lock(&head)).transpose()?;
    let aside = with_suffix(path, &format!(".before-{}", compact_time()));
    if fs::symlink_metadata(&aside).is_ok() {
        return Err(Error::file(&aside, "is there already; run this again"));
    }
    let found = state_of(path, key_file);
    let new = begin(
        path,
        key_file,
        owner,
        Map::from_iter([
            ("why".to_owned(), Value::from(why)),
            ("uid".to_owned(), nix::unistd::getuid().as_raw().into()),
            ("found".to_owned(), found.into()),
            ("moved_to".to_owned(), aside.to_string_lossy().into()),
        ]),
    )?;
    // The head is replaced last, and at once: until then a server that looks finds the old one.
    let moved = || -> io::Result<()> {
        for (number, file) in &older {
            fs::rename(file, with_suffix(&aside, &format!(".{number}")))?;
        }
        if present[1].is_some() {
            fs::hard_link(&head, head_path(&aside))?;
        }
        if present[0].is_some() {
            fs::rename(path, &aside)?;
        }
        fs::rename(&new, path)?;
        fs::rename(head_path(&new), &head)?;
        sync_directory_of(path)
    };
    moved().map_err(|error| failed("move its files; run this again", &error))?;
    Ok(aside)
}

/// Takes the lock that a server holds while it writes to a log.
fn lock(head: &Path) -> Result<fs::File, Error> {
    let failed = |error: io::Error| Error::file(head, format!("cannot be opened: {error}"));
    let opened = regular_file::open(OpenOptions::new().read(true), head, Symlink::Refused);
    let (file, _) = opened.map_err(|fault| failed(fault.into()))?;
    match try_lock(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::file(head, "a server writes to this audit log, which is as it left it; stop it first"))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// What a verification says of the log, in words.
fn state_of(path: &Path, key_file: Option<&Path>) -> String {
    let files = Files {
        paths: vec![path.to_path_buf()],
        key_file: key_file.map(Path::to_path_buf),
        expect_last: None,
        from_start: false,
        without_head: false,
    };
    match verify(&files).map(|found| found.into_result()) {
        Ok(Ok(())) => "nothing is wrong with it".to_owned(),
        Ok(Err(error)) | Err(error) => error.to_string(),
    }
}

/// Writes a log of one record beside the one at `path`, for its owner, and returns where.
fn begin(
    path: &Path,
    key_file: Option<&Path>,
    owner: &Metadata,
    fields: Map<String, Value>,
) -> Result<PathBuf, Error> {
    let new = with_suffix(path, ".new");
    let failed = |error: io::Error| Error::file(&new, format!("cannot be written: {error}"));
    for left in [&new, &head_path(&new)] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let mut log = AuditLog::open(&AuditOptions {
        path: new.clone(),
        key_file: key_file.map(Path::to_path_buf),
        limit: AuditOptions::DEFAULT_LIMIT,
        keep: 0,
    })?;
    log.append(wall_now(), RESTARTED, fields).and_then(|_| log.sync()).map_err(failed)?;
    drop(log);
    if owner.uid() != nix::unistd::geteuid().as_raw() {
        for file in [&new, &head_path(&new)] {
            lchown(file, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
        }
    }
    Ok(new)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The time without characters that a shell or a file system minds: `20261123T131202000Z`.
fn compact_time() -> String {
    rfc3339(wall_now()).chars().filter(char::is_ascii_alphanumeric).collect()
}
