//! The writer of the audit log.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};

use crate::base::clock;
use crate::base::error::Error;
use crate::base::files::append_log::{AppendFile, numbered, rotate};
use crate::base::files::directory::{make_directory_of, sync_directory_of};
use crate::metrics::faults::{Faults, Part};
use crate::services::audit::head::{Head, OPEN_TO_OTHERS};
use crate::services::audit::mac::Authenticator;
use crate::services::audit::options::AuditOptions;
use crate::services::audit::record::{AuditEntry, CONTINUED, CUT_OFF, FORMAT, Link, REPAIRED, STARTED};
use crate::services::audit::recover::{ExistingLog, unusable};

/// The mode of the files: only the server's user may read and write them.
const MODE: u32 = 0o600;
/// The mode of their directory, if it is missing.
const DIRECTORY_MODE: u32 = 0o700;

/// The audit log, which this server alone writes while it is open.
#[derive(Debug)]
pub(crate) struct AuditLog {
    options: AuditOptions,
    sealer: Authenticator,
    head: Head,
    file: AppendFile,
    /// The last record.
    last: Link,
    /// The number of the first record in the present file.
    first: u64,
    /// The last record that is on the disk, and the length of the present file up to it.
    durable: (Link, u64),
    /// The number of the record in the head.
    told: u64,
    /// The last record as of the last [`AuditLog::sync`].
    answered: u64,
    /// Whether records after that one were lost.
    has_lost: bool,
    /// Set when another program has cut off the present file, until the log has gone on.
    cut: Option<Cut>,
    /// Where such events are counted.
    faults: Option<Faults>,
    /// Whether a failure to rotate was logged.
    is_stuck: bool,
    /// A buffer for one line.
    line: Vec<u8>,
}

/// What another program has done to the present file: its length before and after that, in bytes.
#[derive(Clone, Copy, Debug)]
struct Cut {
    before: u64,
    after: u64,
}

impl AuditLog {
    /// Opens the log, or starts one. Verifies the whole present file, and that the log contains the record in
    /// the head. An incomplete end after that record is cut off, logged and recorded.
    ///
    /// # Errors
    ///
    /// The key or a file cannot be used, another server has the log, or records were changed or are missing.
    /// Nothing was written then, except perhaps an empty head, and a directory for it.
    pub(crate) fn open(options: &AuditOptions) -> Result<AuditLog, Error> {
        options.check()?;
        let path = options.path.as_path();
        let sealer = Authenticator::read(options.key_file.as_deref())?;
        make_directory_of(path, DIRECTORY_MODE).map_err(|error| unusable(path, &error))?;
        let head = Head::open(path)?;
        let ExistingLog { file, walk, torn, first, last } = ExistingLog::find(path, &sealer, &head)?;
        let failed = |error: io::Error| unusable(path, &error);
        let now = clock::wall_now();
        if last == Link::START {
            head.write(last, &sealer).and_then(|()| head.sync_name()).map_err(failed)?;
        }
        let options = options.clone();
        let file = match file {
            Some(mut file) => {
                if torn > 0 {
                    file.cut(walk.bytes).map_err(failed)?;
                }
                // The content that was read may not have been on the disk.
                file.sync().map_err(failed)?;
                file
            }
            None => AppendFile::create_new(path, MODE).map_err(failed)?,
        };
        let durable = (last, file.length());
        let mut log = AuditLog {
            options,
            sealer,
            head,
            file,
            last,
            first,
            durable,
            told: Link::START.seq,
            answered: last.seq,
            has_lost: false,
            cut: None,
            faults: None,
            is_stuck: false,
            line: Vec::new(),
        };
        if walk.lines == 0 {
            log.begin(now).map_err(failed)?;
        }
        if torn > 0 {
            tracing::warn!(
                target: "varta::audit",
                bytes = torn,
                "{}: the end was not whole, as after a crash; {torn} bytes behind record {} were cut off",
                path.display(),
                last.seq
            );
            let fields = Map::from_iter([("cut_bytes".to_owned(), Value::from(torn))]);
            log.append(now, REPAIRED, fields).map_err(failed)?;
        }
        log.sync().map_err(failed)?;
        // A server that crashed after it created or renamed a file may not have synced the directory.
        sync_directory_of(&log.options.path).map_err(failed)?;
        Ok(log)
    }

    /// Has files that are moved, removed or cut off counted there.
    pub(super) fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = Some(faults);
        self
    }

    fn count_replaced(&self) {
        if let Some(faults) = &self.faults {
            faults.count_replaced(Part::Audit);
        }
    }

    /// Appends a record, and returns its number. The record goes to the kernel as one line, and is on the
    /// disk after [`AuditLog::sync`]. A file that has reached its limit is rotated first; if that fails, the
    /// present file grows further, which is logged.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for a record that is not allowed: a reserved field, an invalid name of
    /// its event, or too long. Otherwise the error of the write. Nothing was appended then, and the next
    /// record may succeed.
    pub(crate) fn append(
        &mut self,
        at: SystemTime,
        event: &str,
        fields: Map<String, Value>,
    ) -> io::Result<u64> {
        // A record in an unlinked file would be lost.
        self.keep_place(at)?;
        let entry = AuditEntry { at, event, fields };
        let mut link = entry.compose(self.last, &self.sealer, &mut self.line)?;
        let length = self.file.length().saturating_add(self.line.len() as u64);
        if length > self.options.limit && self.last.seq > self.first {
            match self.rotate(at) {
                Ok(()) => self.is_stuck = false,
                Err(error) if !self.is_stuck => {
                    self.is_stuck = true;
                    let path = self.options.path.display();
                    tracing::warn!(
                        target: "varta::audit",
                        "{path}: the next file cannot be begun: {error}; this one becomes longer"
                    );
                }
                Err(_) => {}
            }
            link = entry.compose(self.last, &self.sealer, &mut self.line)?;
        }
        self.file.append(&self.line)?;
        self.last = link;
        Ok(link.seq)
    }

    /// Returns once all records are on the disk and the head is written. A file that was moved or removed is
    /// followed by a new one, which is logged.
    ///
    /// # Errors
    ///
    /// The error of the sync; or the loss of records since the last call, because the disk refused them or
    /// their file was removed. Refused records are taken back, and their numbers are used again. Later
    /// records may succeed.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let settled = self.settle(clock::wall_now());
        self.answered = self.last.seq;
        let has_lost = std::mem::take(&mut self.has_lost);
        settled?;
        if has_lost {
            return Err(io::Error::other(
                "records were lost: the disk did not take them, or their file was removed",
            ));
        }
        Ok(())
    }

    /// Syncs all records to files that are still linked.
    fn settle(&mut self, at: SystemTime) -> io::Result<()> {
        self.sync_written()?;
        self.keep_place(at)?;
        self.sync_written()
    }

    /// Starts a new file if the present one was moved or removed, and goes on if it was cut off.
    fn keep_place(&mut self, at: SystemTime) -> io::Result<()> {
        if let Some((before, after)) = self.file.take_cut()? {
            tracing::error!(
                target: "varta::audit",
                before,
                after,
                "{}: another program has cut it off from {before} to {after} bytes, as logrotate does by `copytruncate`; \
                 records that stood there are only in copies, if there are any",
                self.options.path.display()
            );
            self.count_replaced();
            self.has_lost |= self.answered < self.last.seq;
            self.cut = Some(Cut { before, after });
        }
        if let Some(cut) = self.cut {
            self.go_on_after(cut, at)?;
        }
        if self.file.is_at(&self.options.path)? {
            return Ok(());
        }
        // The end of a moved file must be on the disk before the next file begins.
        self.file.mend()?;
        self.sync_written()?;
        self.has_lost |= self.answered < self.last.seq && self.file.is_removed()?;
        self.follow(at)?;
        tracing::warn!(
            target: "varta::audit",
            "{}: was moved or removed while it was written to; a new file was begun",
            self.options.path.display()
        );
        self.count_replaced();
        Ok(())
    }

    /// Goes on in the present file, if it is empty, else in a new one: what was left of it may end anywhere, and
    /// is kept.
    fn go_on_after(&mut self, cut: Cut, at: SystemTime) -> io::Result<()> {
        let Cut { before, after } = cut;
        if after == 0 {
            self.begin(at)?;
        } else {
            if self.file.is_at(&self.options.path)? {
                rotate(&self.options.path, self.options.keep)?;
            }
            self.follow(at)?;
        }
        self.cut = None;
        let fields = [("bytes_before", before), ("bytes_left", after)];
        let fields = fields.map(|(key, bytes)| (key.to_owned(), Value::from(bytes)));
        self.append(at, CUT_OFF, Map::from_iter(fields)).map(drop)
    }

    fn sync_written(&mut self) -> io::Result<()> {
        if self.durable.0 != self.last {
            self.file.sync().inspect_err(|_| self.take_back())?;
            self.durable = (self.last, self.file.length());
        }
        if self.head.keep_place()? {
            self.told = Link::START.seq;
        }
        if self.told < self.last.seq {
            self.head.write(self.last, &self.sealer)?;
            self.told = self.last.seq;
        }
        Ok(())
    }

    /// Takes back the records that did not reach the disk. The kernel reports a failed fsync once and then
    /// takes the pages for written, so that the head would confirm them after the next sync.
    fn take_back(&mut self) {
        let (last, length) = self.durable;
        self.has_lost |= self.answered < self.last.seq;
        self.last = last;
        // A failed cut is repeated before the next record.
        let _ = self.file.cut(length);
    }

    /// The present file, on whose disk a test injects faults.
    #[cfg(test)]
    pub(super) fn file(&mut self) -> &mut AppendFile {
        &mut self.file
    }

    /// Rotates the files, or leaves all as it was.
    fn rotate(&mut self, at: SystemTime) -> io::Result<()> {
        // After the rename no code would cut off an incomplete line.
        self.file.mend()?;
        // The next file must not exist without the end of this one. The sync may have started a new file
        // itself.
        self.settle(at)?;
        if self.last.seq <= self.first {
            return Ok(());
        }
        rotate(&self.options.path, self.options.keep)?;
        self.follow(at).inspect_err(|_| {
            // If the rename fails, the next start finds the end of the log in FILE.1, and the next call
            // creates a new file.
            let _ = fs::rename(numbered(&self.options.path, 1), &self.options.path);
        })
    }

    /// Continues the log in a new file.
    fn follow(&mut self, at: SystemTime) -> io::Result<()> {
        let path = self.options.path.clone();
        let next = match AppendFile::create_new(&path, MODE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => take_over(&path)?,
            made => made?,
        };
        let before = std::mem::replace(&mut self.file, next);
        self.begin(at).inspect_err(|_| {
            self.file = before;
            // The file has no content, whether the server or another program created it.
            let _ = fs::remove_file(&path);
        })
    }

    /// Writes the first record of the present file, which is empty.
    fn begin(&mut self, at: SystemTime) -> io::Result<()> {
        let mut fields = Map::new();
        fields.insert("format".to_owned(), FORMAT.into());
        fields.insert("seal".to_owned(), self.sealer.name().into());
        let is_new = self.last == Link::START;
        if is_new {
            fields.insert("log".to_owned(), random_id()?.into());
        }
        let event = if is_new { STARTED } else { CONTINUED };
        let link = AuditEntry { at, event, fields }.compose(self.last, &self.sealer, &mut self.line)?;
        self.file.append(&self.line)?;
        let synced = self.file.sync().and_then(|()| sync_directory_of(&self.options.path));
        if let Err(error) = synced {
            self.file.cut(0)?;
            return Err(error);
        }
        (self.first, self.last) = (link.seq, link);
        self.durable = (link, self.file.length());
        Ok(())
    }
}

/// Opens the empty file that another program, such as logrotate, created in place of the moved one.
fn take_over(path: &Path) -> io::Result<AppendFile> {
    let refused =
        |fault: &str| io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: {fault}", path.display()));
    let opened = AppendFile::open_existing(path).map_err(|error| refused(&error.to_string()))?;
    let file = opened.ok_or_else(|| refused("was put there and removed again"))?;
    if !file.is_ours_alone()? {
        return Err(refused(OPEN_TO_OTHERS));
    }
    if file.length() > 0 {
        return Err(refused("was put in the place of the audit log and is not empty; move it aside"));
    }
    Ok(file)
}

/// The identity of a log: 128 random bits.
fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
