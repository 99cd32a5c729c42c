//! What a server finds of the log that the one before it wrote.

use std::io;
use std::path::Path;

use super::chain::{Chain, Fault, Mark, Stop, Walk};
use super::head::{Head, OPEN_TO_OTHERS};
use super::record::{Link, Record};
use super::seal::Sealer;
use crate::append_file::{AppendFile, numbered};
use crate::error::Error;

/// What was found of a log.
pub(super) struct Left {
    /// The present file, if there is one, and how far it is whole.
    pub(super) file: Option<AppendFile>,
    pub(super) walk: Walk,
    /// Bytes of a last line that was not finished.
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
                return Err(Error::Audit { path: path.to_path_buf(), fault: OPEN_TO_OTHERS.to_owned() });
            }
            (walk, torn) = walk_present(path, file, &mut chain, |record| {
                first = if first == 0 { record.seq } else { first };
                if let Some(mark) = &mut mark {
                    mark.see(record);
                }
            })?;
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
        match (mark, chain.last) {
            // Somebody's file that never was a log of ours.
            (None, None) if torn > 0 => {
                return Err(Error::Audit {
                    path: path.to_path_buf(),
                    fault: "is there and is no audit log; give another name with --audit-log".to_owned(),
                });
            }
            (None, None) => {}
            (None, Some(_)) => return Err(broken(head.path(), None, Fault::NoHead)),
            (Some(Mark { link: Link::START, .. }), None) => {}
            (Some(mark), last) => {
                mark.met(last, Fault::WrongHead).map_err(|fault| broken(path, None, fault))?;
            }
        }
        Ok(Left { file, walk, torn, first, last: chain.last.unwrap_or(Link::START) })
    }
}

/// Walks through the present file, and says how many bytes of a line that is not finished there are at its end.
fn walk_present(
    path: &Path,
    file: &AppendFile,
    chain: &mut Chain<'_>,
    see: impl FnMut(&Record<'_>),
) -> Result<(Walk, u64), Error> {
    let failed = |error: io::Error| unusable(path, &error);
    let walk = chain.walk(file.rewound().map_err(failed)?, see).map_err(failed)?;
    match walk.stop {
        None => Ok((walk, 0)),
        Some(Stop { fault: Fault::Torn { bytes }, .. }) => Ok((walk, bytes)),
        Some(Stop { fault: Fault::NotARecord, length, .. }) if walk.bytes + length == file.length() => {
            Ok((walk, length))
        }
        Some(stop) => Err(broken(path, Some((walk.lines, stop)), stop.fault)),
    }
}

pub(super) fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::Audit {
        path: path.to_path_buf(),
        fault: format!("cannot be used for the audit log: {error}; see --audit-log"),
    }
}

/// That the log is not what was written. `place` has the lines before the one that is wrong.
fn broken(path: &Path, place: Option<(u64, Stop)>, fault: Fault) -> Error {
    let place = match place {
        Some((lines, Stop { seq: Some(seq), .. })) => format!("line {}, record {seq}: ", lines + 1),
        Some((lines, _)) => format!("line {}: ", lines + 1),
        None => String::new(),
    };
    let fault = format!(
        "{place}{fault}; `varta-server audit verify` looks at the whole log. Move the log, its .head and its .1, .2 and so on \
         aside, and keep them: the server begins a new log when it is started then"
    );
    Error::Audit { path: path.to_path_buf(), fault }
}
