//! The head: a small file next to the log that holds the number and hash of its last record, so that records
//! removed from the end are noticed.
//!
//! It is overwritten in place after each sync of the log, so it is never ahead of the disk. The server never
//! renames it, and locks it in place of the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::error::Error;
use crate::base::files::append_log::{is_at, is_ours_alone};
use crate::base::files::directory::sync_directory_of;
use crate::base::files::lock::try_lock;
use crate::base::files::regular_file::{self, Symlink};
use crate::services::audit::chain::ChainError;
use crate::services::audit::mac::{Authenticator, Hash};
use crate::services::audit::record::{Link, number, split_hash};

/// The fixed length in bytes. Less than a sector, which is written whole, so a crash leaves the old head or
/// the new one.
const LENGTH: usize = 192;

/// The fault of a file that other users may write to.
pub(super) const OPEN_TO_OTHERS: &str = "others than this server's user may write to it; chown the audit log and its head to that user, and chmod go-w them";

/// The path of a log's head.
pub(super) fn head_path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".head");
    PathBuf::from(name)
}

/// The head of a log that is being written. An open head holds the lock of the log.
#[derive(Debug)]
pub(super) struct Head {
    path: PathBuf,
    file: File,
}

impl Head {
    /// Opens the head of a log, creates it if it does not exist, and locks it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, others may write to it, or another server has the lock.
    pub(super) fn open(log: &Path) -> Result<Self, Error> {
        Self::open_at(head_path(log))
    }

    fn open_at(path: PathBuf) -> Result<Self, Error> {
        let refused = |fault: String| Error::file(&path, fault);
        let failed = |error: io::Error| {
            let fault = format!("cannot be opened: {error}; see --audit-log");
            if may_pass(&error) { Error::AuditLog { path: path.clone(), fault } } else { refused(fault) }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let opened = regular_file::open(&mut options, &path, Symlink::Refused);
        let (file, found) = opened.map_err(|fault| failed(fault.into()))?;
        if !is_ours_alone(&found) {
            return Err(Error::AuditLog { path, fault: OPEN_TO_OTHERS.to_owned() });
        }
        try_lock(&file).map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => refused(
                "another server writes to this audit log; stop it, or give this one another file with --audit-log"
                    .to_owned(),
            ),
            std::fs::TryLockError::Error(error) => failed(error),
        })?;
        Ok(Head { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates an empty head in place of one that was moved or removed, and returns whether it did. Without a
    /// head the next start of the server fails.
    ///
    /// # Errors
    ///
    /// It cannot be created, or another file is in its place. The next call tries again.
    pub(super) fn keep_place(&mut self) -> io::Result<bool> {
        if is_at(&self.file, &self.path)? {
            return Ok(false);
        }
        let head = Self::open_at(self.path.clone()).map_err(io::Error::other)?;
        let path = self.path.display();
        if head.file.metadata()?.len() > 0 {
            let fault = format!(
                "{path}: was put in the place of the audit log's head and is not empty; move it aside"
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, fault));
        }
        head.sync_name()?;
        tracing::warn!(
            target: "varta::audit",
            "{path}: was moved or removed while the audit log was written to; it was made anew"
        );
        *self = head;
        Ok(true)
    }

    /// The last record as of the last write; `None` before the first.
    ///
    /// # Errors
    ///
    /// The error of the read; the inner result has the fault of the content.
    pub(super) fn read(&self, sealer: &Authenticator) -> io::Result<Result<Option<Link>, ChainError>> {
        read_head(&self.file, sealer)
    }

    /// Writes the last record, and returns once it is on the disk.
    ///
    /// # Errors
    ///
    /// The error of the write or the sync.
    pub(super) fn write(&self, link: Link, sealer: &Authenticator) -> io::Result<()> {
        let Link { seq, hash } = link;
        let body = format!("{{\"seq\":{seq},\"last\":\"{hash}\"");
        let seal = sealer.mac(body.as_bytes());
        let line = format!("{body},\"hash\":\"{seal}\"}}");
        self.file.write_all_at(format!("{line:width$}\n", width = LENGTH - 1).as_bytes(), 0)?;
        self.file.sync_data()
    }

    /// Returns once its directory entry is on the disk.
    ///
    /// # Errors
    ///
    /// The error of the sync.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        sync_directory_of(&self.path)
    }
}

/// Whether an error of the disk may be otherwise later, without anybody changing the options.
pub(super) fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
        || error.raw_os_error() == Some(libc::EIO)
}

/// Reads a head: the last record of the log; `None` if the file is empty.
pub(super) fn read_head(
    file: impl Read,
    sealer: &Authenticator,
) -> io::Result<Result<Option<Link>, ChainError>> {
    let mut text = Vec::new();
    file.take(LENGTH as u64 + 1).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(Ok(None));
    }
    Ok(parse(&text, sealer).map(Some).ok_or(ChainError::WrongHead))
}

fn parse(text: &[u8], sealer: &Authenticator) -> Option<Link> {
    let line = text.strip_suffix(b"\n")?;
    if text.len() != LENGTH {
        return None;
    }
    let line = &line[..=line.iter().rposition(|byte| *byte != b' ')?];
    let (body, seal) = split_hash(line, b",\"hash\":\"", b"\"}")?;
    let (rest, hash): (_, Hash) = split_hash(body, b",\"last\":\"", b"\"")?;
    let seq = number(rest.strip_prefix(b"{\"seq\":")?)?;
    (sealer.mac(body) == seal).then_some(Link { seq, hash })
}
