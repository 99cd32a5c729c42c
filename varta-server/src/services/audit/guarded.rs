//! An audit log that may be unusable: nothing is recorded then, and no action that must be recorded is taken, until
//! somebody has decided what becomes of it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::base::error::Error;
use crate::metrics::faults::{Faults, Part};
use crate::services::audit::head::head_path;
use crate::services::audit::log::AuditLog;
use crate::services::audit::options::AuditOptions;
use crate::services::audit::writer::RecordSink;

/// The log, or why there is none. It is opened again when its files have changed.
#[derive(Debug)]
pub(super) struct GuardedLog {
    options: AuditOptions,
    log: Result<AuditLog, Unusable>,
    faults: Faults,
}

#[derive(Debug)]
struct Unusable {
    fault: String,
    /// The files that were found so.
    files: FileStates,
}

/// What tells that a file is another, or has changed: device, inode, length and time of its last change.
type FileState = (u64, u64, u64, i64, i64);
/// The states of the log and of its head; `None` for one that is missing.
type FileStates = [Option<FileState>; 2];

impl GuardedLog {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// A mistake in the options, or another server has the log. A log that is broken, or cannot be written at
    /// present, is no error: it is logged, and reported as a fault.
    pub(super) fn open(options: &AuditOptions, faults: &Faults) -> Result<Self, Error> {
        let files = states_of(options);
        let log = match AuditLog::open(options) {
            Ok(log) => Ok(log.with_faults(faults.clone())),
            Err(Error::AuditLog { path, fault }) => {
                let fault = format!("{}: {fault}", path.display());
                tracing::error!(
                    target: "varta::audit",
                    "the audit log cannot be continued, and no recovery is recorded until that is decided: {fault}"
                );
                faults.set(Part::Audit, &options.path, told(&fault));
                Err(Unusable { fault, files })
            }
            Err(error) => return Err(error),
        };
        Ok(GuardedLog { options: options.clone(), log, faults: faults.clone() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.options.path
    }

    /// Opens a log that was unusable, if its files have changed since.
    fn look_again(&mut self) {
        let Err(Unusable { files, .. }) = &self.log else { return };
        let found = states_of(&self.options);
        if *files == found {
            return;
        }
        match AuditLog::open(&self.options) {
            Ok(log) => {
                self.faults.clear(Part::Audit, &self.options.path);
                tracing::info!(
                    target: "varta::audit",
                    "{}: recoveries are recorded again",
                    self.options.path.display()
                );
                self.log = Ok(log.with_faults(self.faults.clone()));
            }
            Err(error) => {
                let fault = error.to_string();
                self.faults.set(Part::Audit, &self.options.path, told(&fault));
                self.log = Err(Unusable { fault, files: found });
            }
        }
    }

    fn usable(&mut self) -> io::Result<&mut AuditLog> {
        self.look_again();
        self.log.as_mut().map_err(|unusable| io::Error::other(unusable.fault.clone()))
    }
}

impl RecordSink for GuardedLog {
    fn append(&mut self, at: SystemTime, event: &str, fields: Map<String, Value>) -> io::Result<()> {
        self.usable()?.append(at, event, fields).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.usable()?.sync()
    }

    fn check(&mut self) {
        self.look_again();
        if let Ok(log) = &mut self.log
            && let Err(error) = log.sync()
        {
            tracing::error!(
                target: "varta::audit",
                "{}: cannot be written: {error}; see --audit-log",
                self.options.path.display()
            );
        }
    }
}

fn told(fault: &str) -> String {
    format!("recovery acts on nothing unless --recovery-without-audit is given: {fault}")
}

fn states_of(options: &AuditOptions) -> FileStates {
    [state_of(&options.path), state_of(&head_path(&options.path))]
}

fn state_of(path: &Path) -> Option<FileState> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}
