//! The head: a small file beside the log that says up to where it went, so that nothing is cut off at its end unseen.
//!
//! It is written in place, after the log: it is never ahead of what is on the disk. It is also what is locked, for the
//! server never renames it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::error::Error;
use crate::base::files::append_log::{is_at, is_ours_alone};
use crate::base::files::directory::sync_directory_of;
use crate::base::files::lock::try_lock;
use crate::services::audit::chain::Fault;
use crate::services::audit::mac::{Hash, Sealer};
use crate::services::audit::record::{Link, number, split_hash};

/// Always as long: less than a disk writes at once, so a crash leaves the old one or the new one.
const LENGTH: usize = 192;

/// Of a file that others may change.
pub(super) const OPEN_TO_OTHERS: &str = "others than this server's user may write to it; chown the audit log and its head to that user, and chmod go-w them";

/// The name of the head of a log.
pub(super) fn head_path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".head");
    PathBuf::from(name)
}

/// The head of a log that is being written. While it is open nobody else has the log.
#[derive(Debug)]
pub(super) struct Head {
    path: PathBuf,
    file: File,
}

impl Head {
    /// Opens the head of a log, makes it if it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// When that fails, others may write to it, or another server has it.
    pub(super) fn open(log: &Path) -> Result<Self, Error> {
        Self::open_at(head_path(log))
    }

    fn open_at(path: PathBuf) -> Result<Self, Error> {
        let refused = |fault: String| Error::file(&path, fault);
        let failed = |error: io::Error| refused(format!("cannot be opened: {error}; see --audit-log"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(refused("is not a regular file; see --audit-log".to_owned()));
        }
        if !is_ours_alone(&found) {
            return Err(refused(OPEN_TO_OTHERS.to_owned()));
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

    /// Makes it anew, empty, if it was moved or removed, and says whether that was so. Without one the next server would not
    /// start.
    ///
    /// # Errors
    ///
    /// When that fails, or something else is in its place. The next call tries again.
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

    /// Where the log ended when this was last written; `None` when nothing was.
    ///
    /// # Errors
    ///
    /// What the kernel says; or what is wrong with it.
    pub(super) fn read(&self, sealer: &Sealer) -> io::Result<Result<Option<Link>, Fault>> {
        read_head(&self.file, sealer)
    }

    /// Writes where the log ends, and waits until that is on the disk.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn write(&self, link: Link, sealer: &Sealer) -> io::Result<()> {
        let Link { seq, hash } = link;
        let body = format!("{{\"seq\":{seq},\"last\":\"{hash}\"");
        let seal = sealer.seal(body.as_bytes());
        let line = format!("{body},\"hash\":\"{seal}\"}}");
        self.file.write_all_at(format!("{line:width$}\n", width = LENGTH - 1).as_bytes(), 0)?;
        self.file.sync_data()
    }

    /// Waits until its name is on the disk.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        sync_directory_of(&self.path)
    }
}

/// Reads a head: where the log ended; `None` when it is empty.
pub(super) fn read_head(file: impl Read, sealer: &Sealer) -> io::Result<Result<Option<Link>, Fault>> {
    let mut text = Vec::new();
    file.take(LENGTH as u64 + 1).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(Ok(None));
    }
    Ok(parse(&text, sealer).map(Some).ok_or(Fault::WrongHead))
}

fn parse(text: &[u8], sealer: &Sealer) -> Option<Link> {
    let line = text.strip_suffix(b"\n")?;
    if text.len() != LENGTH {
        return None;
    }
    let line = &line[..=line.iter().rposition(|byte| *byte != b' ')?];
    let (body, seal) = split_hash(line, b",\"hash\":\"", b"\"}")?;
    let (rest, hash): (_, Hash) = split_hash(body, b",\"last\":\"", b"\"")?;
    let seq = number(rest.strip_prefix(b"{\"seq\":")?)?;
    (sealer.seal(body) == seal).then_some(Link { seq, hash })
}
