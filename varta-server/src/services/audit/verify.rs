//! Verification of an audit log.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use crate::base::error::Error;
use crate::base::files::append_log::rotated;
use crate::base::files::bounded_read::{self, ReadError, Symlink};
use crate::base::progress::Progress;
use crate::services::audit::chain::{Chain, ChainError, ExpectedEntry};
use crate::services::audit::head::{head_path, read_head};
use crate::services::audit::mac::Authenticator;
use crate::services::audit::record::{Link, MAX_RECORD_LEN, RECORD_START};
use crate::services::audit::report::{Broken, RecordPosition, VerifyReport};

/// The files to verify, and the conditions on them.
#[derive(Clone, Debug)]
pub struct Files {
    /// The files of the log, the oldest first. For a single one its rotated predecessors are found and come
    /// first.
    pub paths: Vec<PathBuf>,
    /// The file with the key for the hashes.
    pub key_file: Option<PathBuf>,
    /// A record that was once the last one, and must still exist.
    pub expect_last: Option<Link>,
    /// Whether the first record of the log must be among the files.
    pub from_start: bool,
    /// Whether to verify without the head.
    pub without_head: bool,
}

/// Verifies a log line by line, up to the first fault.
///
/// # Errors
///
/// A file cannot be read. A fault of the log is no error but part of the report.
pub fn verify(files: &Files) -> Result<VerifyReport, Error> {
    verify_showing(files, &Progress::hidden())
}

/// The same, and shows how far it has come.
///
/// # Errors
///
/// As for [`verify`].
pub(super) fn verify_showing(files: &Files, progress: &Progress) -> Result<VerifyReport, Error> {
    let Files { paths, key_file, expect_last, without_head, .. } = files;
    let sealer = Authenticator::read(key_file.as_deref())?;
    let paths = with_older(paths)?;
    let mut found = VerifyReport { files: paths.clone(), seal: sealer.name(), ..VerifyReport::default() };
    let mut head = None;
    // The head is read before the log, so that records written meanwhile are after it.
    if let (false, Some(path)) = (without_head, paths.last().map(|path| head_path(path))) {
        match read_head_of(&path, &sealer)? {
            Ok(link) => head = Some((path, ExpectedEntry::new(link))),
            Err(fault) => {
                if let (ChainError::NoHead, Some(first)) = (fault, paths.first())
                    && let Some(fault) = is_no_log(first)?
                {
                    let line = (fault == ChainError::NotALog).then_some(1);
                    found.broken = Some(Broken { file: first.clone(), line, seq: None, fault });
                    return Ok(found);
                }
                found.broken = Some(Broken { file: path, line: None, seq: None, fault });
                return Ok(found);
            }
        }
    }
    let mut expected = expect_last.map(ExpectedEntry::new);
    let mut chain = Chain::new(&sealer);
    let lengths = paths.iter().filter_map(|path| path.metadata().ok()).map(|found| found.len());
    progress.expect(lengths.sum());
    for path in &paths {
        let walk = chain.walk(progress.reading(open(path)?), |record| {
            let place = || RecordPosition { seq: record.seq, at: record.at.to_owned(), hash: record.hash };
            found.first.get_or_insert_with(place);
            match &mut found.last {
                Some(last) => {
                    last.at.clear();
                    last.at.push_str(record.at);
                    (last.seq, last.hash) = (record.seq, record.hash);
                }
                none => *none = Some(place()),
            }
            found.records += 1;
            let marks = head.iter_mut().map(|(_, mark)| mark).chain(&mut expected);
            marks.for_each(|mark| mark.see(record));
        });
        let walk = walk.map_err(|error| unreadable(path, &error))?;
        if let Some(stop) = walk.stop {
            let (line, seq) = (Some(walk.lines + 1), stop.seq);
            found.broken = Some(Broken { file: path.clone(), line, seq, fault: stop.fault });
            return Ok(found);
        }
    }
    found.broken = at_the_end(files, &paths, &found, head.as_ref(), chain.last, expected.as_ref()).err();
    found.head = head.map(|(_, mark)| mark.link.seq);
    found.expected = expected.map(|mark| mark.link.seq);
    Ok(found)
}

/// Checks the beginning and the end of a log whose records are valid.
fn at_the_end(
    files: &Files,
    paths: &[PathBuf],
    found: &VerifyReport,
    head: Option<&(PathBuf, ExpectedEntry)>,
    last: Option<Link>,
    expected: Option<&ExpectedEntry>,
) -> Result<(), Broken> {
    let end = paths.last().cloned().unwrap_or_default();
    let broken = |fault| Broken { file: end.clone(), line: None, seq: None, fault };
    if let Some((path, mark)) = head {
        mark.met(last, ChainError::WrongHead).map_err(|fault| match fault {
            ChainError::WrongHead => Broken { file: path.clone(), ..broken(fault) },
            _ => broken(fault),
        })?;
    }
    let Some(first) = &found.first else { return Err(broken(ChainError::Nothing)) };
    if let Some(mark) = expected {
        let seq = Some(mark.link.seq);
        mark.met(last, ChainError::Unexpected).map_err(|fault| Broken { seq, ..broken(fault) })?;
    }
    if files.from_start && first.seq > 1 {
        let file = paths.first().cloned().unwrap_or_default();
        return Err(Broken { file, line: Some(1), seq: Some(first.seq), fault: ChainError::NotFromStart });
    }
    Ok(())
}

/// The files; a single one is preceded by its rotated predecessors.
fn with_older(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let [path] = paths else { return Ok(paths.to_vec()) };
    let older = rotated(path).map_err(|error| unreadable(path, &error))?;
    let older = older.into_iter().rev().map(|(_, older)| older);
    Ok(older.chain([path.clone()]).collect())
}

/// Why a file without a head is none of an audit log; `None` if it may be one.
fn is_no_log(path: &Path) -> Result<Option<ChainError>, Error> {
    let mut line = Vec::new();
    let file = open(path)?.take(MAX_RECORD_LEN as u64);
    io::BufReader::new(file).read_until(b'\n', &mut line).map_err(|error| unreadable(path, &error))?;
    Ok(match line.as_slice() {
        b"" => Some(ChainError::Nothing),
        text if text.starts_with(RECORD_START) => None,
        _ => Some(ChainError::NotALog),
    })
}

fn read_head_of(path: &Path, sealer: &Authenticator) -> Result<Result<Link, ChainError>, Error> {
    let file = match open(path) {
        Err(Error::File { .. }) if !path.exists() => return Ok(Err(ChainError::NoHead)),
        opened => opened?,
    };
    let read = read_head(file, sealer).map_err(|error| unreadable(path, &error))?;
    Ok(read.and_then(|link| link.ok_or(ChainError::NoHead)))
}

/// Opens a regular file; symbolic links are followed.
fn open(path: &Path) -> Result<File, Error> {
    match bounded_read::open(path, Symlink::Followed) {
        Ok((file, _)) => Ok(file),
        Err(ReadError::Io(error)) => Err(unreadable(path, &error)),
        Err(error) => Err(unreadable(path, &io::Error::other(format!("it {error}")))),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::file(path, format!("cannot be read: {error}"))
}
