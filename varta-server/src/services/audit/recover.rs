//! What a server finds of the log that the one before it wrote.

use std::io;
use std::path::Path;

use crate::base::error::Error;
use crate::base::files::append_log::{AppendFile, numbered};
use crate::services::audit::chain::{Chain, Fault, Mark, Stop, Walk};
use crate::services::audit::head::{Head, OPEN_TO_OTHERS};
use crate::services::audit::mac::Sealer;
use crate::services::audit::record::Link;

/// What was found of a log.
pub(super) struct Left {
    /// The present file, if there is one, and how far it is whole.
    pub(super) file: Option<AppendFile>,
    pub(super) walk: Walk,
    /// The bytes behind the last record that is whole: what a crash has left of lines that nobody was told of.
    pub(super) torn: u64,
    pub(super) first: u64,
    /// The last record; [`Link::START`] when there is none.
    pub(super) last: Link,
}

impl Left {
    /// Looks at what there is, and changes nothing.
    pub(super) fn find(path: &Path, sealer: &Sealer, head: &Head) -> Result<Self, Error> {
        let head_link = head
            .read(sealer)
            .map_err(|error| unusable(head.path(), &error))?
            .map_err(|fault| broken(head.path(), None, fault))?;
        let mut mark = head_link.map(Mark::new);
        let mut chain = Chain::new(sealer);
        let mut first = 0;
        let file = AppendFile::open_existing(path).map_err(|error| unusable(path, &error))?;
        let mut walk = Walk { lines: 0, bytes: 0, stop: None };
        let mut torn = 0;
        if let Some(file) = &file {
            if !file.is_ours_alone().map_err(|error| unusable(path, &error))? {
                return Err(Error::file(path, OPEN_TO_OTHERS));
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
            // Where a server ended while it began a file, the log ends in the one before.
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
                Some(_) => Err(broken(head.path(), None, Fault::NoHead)),
                // Somebody's file that never was a log of ours.
                None if torn > 0 => {
                    let fault = "is there and is no audit log; give another name with --audit-log";
                    Err(Error::file(path, fault))
                }
                None => Ok(Left { file, walk, torn, first, last: Link::START }),
            };
        };
        let met = match (mark.link, last) {
            (Link::START, None) => Ok(()),
            _ => mark.met(last, Fault::WrongHead),
        };
        // More than one line that is not finished.
        let more = walk.stop.filter(|stop| !stop.is_unfinished(torn));
        match (met, more) {
            // A file begins with one line that is synced before there are others.
            (Ok(()), Some(stop)) if walk.lines == 0 => {
                return Err(broken(path, Some((walk.lines, stop)), stop.fault));
            }
            // Others are synced many at a time, and a crash may leave any of those behind the head as it likes.
            (Ok(()), _) => {}
            (Err(_), Some(stop)) => return Err(broken(path, Some((walk.lines, stop)), stop.fault)),
            (Err(fault), None) => return Err(broken(path, None, fault)),
        }
        Ok(Left { file, walk, torn, first, last: last.unwrap_or(Link::START) })
    }
}

pub(super) fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::file(path, format!("cannot be used for the audit log: {error}; see --audit-log"))
}

/// That the log is not what was written. `place` has the lines before the one that is wrong.
fn broken(path: &Path, place: Option<(u64, Stop)>, fault: Fault) -> Error {
    let place = match place {
        Some((lines, Stop { seq: Some(seq), .. })) => format!("line {}, record {seq}: ", lines + 1),
        Some((lines, _)) => format!("line {}: ", lines + 1),
        None => String::new(),
    };
    if let Fault::Newer { .. } = fault {
        let fault = format!("{place}{fault}, or give this one another file with --audit-log");
        return Error::file(path, fault);
    }
    let fault = format!(
        "{place}{fault}; `varta-server audit verify` looks at the whole log. Move the log, its .head and its .1, .2 and so on \
         aside, and keep them: the server begins a new log when it is started then"
    );
    Error::file(path, fault)
}
