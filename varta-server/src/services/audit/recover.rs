//! Recovery of the audit log at the start: finds its last record, and an incomplete end after a crash.

use std::io;
use std::path::Path;

use crate::base::error::Error;
use crate::base::files::append_log::{AppendFile, numbered};
use crate::services::audit::chain::{Chain, ChainError, ChainScan, ExpectedEntry, ScanStop};
use crate::services::audit::head::{Head, OPEN_TO_OTHERS, may_pass};
use crate::services::audit::mac::Authenticator;
use crate::services::audit::record::Link;

/// The existing log, as the server's previous run left it.
pub(super) struct ExistingLog {
    /// The present file, if there is one, and the result of scanning it.
    pub(super) file: Option<AppendFile>,
    pub(super) walk: ChainScan,
    /// The bytes after the last valid record: lines that a crash left incomplete, whose writes were never
    /// confirmed.
    pub(super) torn: u64,
    pub(super) first: u64,
    /// The last record; [`Link::START`] without one.
    pub(super) last: Link,
}

impl ExistingLog {
    /// Scans the existing files, and changes nothing.
    pub(super) fn find(path: &Path, sealer: &Authenticator, head: &Head) -> Result<Self, Error> {
        let head_link = head
            .read(sealer)
            .map_err(|error| unusable(head.path(), &error))?
            .map_err(|fault| broken(head.path(), None, fault))?;
        let mut mark = head_link.map(ExpectedEntry::new);
        let mut chain = Chain::new(sealer);
        let mut first = 0;
        let file = AppendFile::open_existing(path).map_err(|error| unusable(path, &error))?;
        let mut walk = ChainScan { lines: 0, bytes: 0, stop: None };
        let mut torn = 0;
        if let Some(file) = &file {
            if !file.is_ours_alone().map_err(|error| unusable(path, &error))? {
                return Err(Error::AuditLog { path: path.to_path_buf(), fault: OPEN_TO_OTHERS.to_owned() });
            }
            let walked = file.rewound().and_then(|start| {
                chain.walk(start, |record| {
                    first = if first == 0 { record.seq } else { first };
                    if let Some(mark) = &mut mark {
                        mark.see(record);
                    }
                })
            });
            walk = walked.map_err(|error| unusable(path, &error))?;
            torn = file.length().saturating_sub(walk.bytes);
        }
        if walk.lines == 0 {
            // After a crash while a file was started, the log ends in the file before it.
            let before = numbered(path, 1);
            if let Some(file) =
                AppendFile::open_existing(&before).map_err(|error| unusable(&before, &error))?
            {
                let walk = file.rewound().and_then(|start| {
                    chain.walk(start, |record| {
                        if let Some(mark) = &mut mark {
                            mark.see(record);
                        }
                    })
                });
                let walk = walk.map_err(|error| unusable(&before, &error))?;
                if let Some(stop) = walk.stop {
                    return Err(broken(&before, Some((walk.lines, stop)), stop.fault));
                }
            }
        }
        let last = chain.last;
        let Some(mark) = mark else {
            return match last {
                Some(_) => Err(broken(head.path(), None, ChainError::NoHead)),
                // A file that is not an audit log.
                None if torn > 0 => {
                    let fault = "is there and is no audit log; give another name with --audit-log";
                    Err(Error::file(path, fault))
                }
                None => Ok(ExistingLog { file, walk, torn, first, last: Link::START }),
            };
        };
        let met = match (mark.link, last) {
            (Link::START, None) => Ok(()),
            _ => mark.met(last, ChainError::WrongHead),
        };
        // More than a single incomplete line.
        let more = walk.stop.filter(|stop| !stop.is_unfinished(torn));
        match (met, more) {
            // The first line of a file is synced on its own, so a crash cannot damage it once others follow.
            (Ok(()), Some(stop)) if walk.lines == 0 => {
                return Err(broken(path, Some((walk.lines, stop)), stop.fault));
            }
            // Later lines are synced in batches, and a crash may leave any part of those after the head.
            (Ok(()), _) => {}
            (Err(_), Some(stop)) => return Err(broken(path, Some((walk.lines, stop)), stop.fault)),
            (Err(fault), None) => return Err(broken(path, None, fault)),
        }
        Ok(ExistingLog { file, walk, torn, first, last: last.unwrap_or(Link::START) })
    }
}

/// The error of a file that cannot be read or written. A disk that is full or fails may be well again later.
pub(super) fn unusable(path: &Path, error: &io::Error) -> Error {
    let fault = format!("cannot be used for the audit log: {error}; see --audit-log");
    if may_pass(error) {
        Error::AuditLog { path: path.to_path_buf(), fault }
    } else {
        Error::file(path, fault)
    }
}

/// The error of a log that is not as it was written. `place` has the number of lines before the fault.
fn broken(path: &Path, place: Option<(u64, ScanStop)>, fault: ChainError) -> Error {
    let place = match place {
        Some((lines, ScanStop { seq: Some(seq), .. })) => format!("line {}, record {seq}: ", lines + 1),
        Some((lines, _)) => format!("line {}: ", lines + 1),
        None => String::new(),
    };
    if let ChainError::Newer { .. } = fault {
        let fault = format!("{place}{fault}, or give this one another file with --audit-log");
        return Error::file(path, fault);
    }
    let fault = format!(
        "{place}{fault}; `varta-server audit verify` looks at the whole log, and `varta-server audit restart` moves it aside and \
         begins a new one"
    );
    Error::AuditLog { path: path.to_path_buf(), fault }
}
