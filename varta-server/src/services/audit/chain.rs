//! The hash chain: verifies that records follow one another as they were written.

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::services::audit::mac::{Authenticator, Hash};
use crate::services::audit::record::{AuditRecord, CONTINUED, FORMAT, Link, MAX_RECORD_LEN, STARTED};

/// A fault of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainError {
    /// The line is not in the format of a record.
    NotARecord,
    /// The file has no head, and begins with something else than a record.
    NotALog,
    /// The line is longer than `MAX_RECORD` bytes.
    TooLong,
    /// A newer server wrote the file.
    Newer {
        /// The version of its format.
        format: u64,
    },
    /// The record's hash does not match its content.
    Changed,
    /// The file was authenticated in another way: with a key in place of without one, or the reverse.
    OtherSeal,
    /// Records are missing before this one.
    MissingBefore {
        /// The record that should stand here.
        expected: u64,
    },
    /// The record is a repeat or out of order.
    Repeated,
    /// `prev` does not match the hash of the record before it: one of the two is of another log.
    OtherLog,
    /// The first record of the file is not one that begins a file.
    NoBeginning,
    /// The last line is incomplete.
    Torn {
        /// The length of the incomplete line in bytes.
        bytes: u64,
    },
    /// Records are missing at the end.
    CutOff {
        /// The last record that is known to have existed.
        last: u64,
    },
    /// The head is missing or empty.
    NoHead,
    /// The head was changed, or is of another log.
    WrongHead,
    /// The expected record is in an older file.
    Older,
    /// A record has another hash than expected.
    Unexpected,
    /// The first record of the log is not among the files.
    NotFromStart,
    /// There are no records.
    Nothing,
}

impl ChainError {
    /// The name of the fault in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ChainError::NotARecord => "not_a_record",
            ChainError::NotALog => "not_a_log",
            ChainError::TooLong => "too_long",
            ChainError::Newer { .. } => "newer",
            ChainError::Changed => "changed",
            ChainError::OtherSeal => "other_seal",
            ChainError::MissingBefore { .. } => "missing_before",
            ChainError::Repeated => "repeated",
            ChainError::OtherLog => "other_log",
            ChainError::NoBeginning => "no_beginning",
            ChainError::Torn { .. } => "torn",
            ChainError::CutOff { .. } => "cut_off",
            ChainError::NoHead => "no_head",
            ChainError::WrongHead => "wrong_head",
            ChainError::Older => "older",
            ChainError::Unexpected => "unexpected",
            ChainError::NotFromStart => "not_from_start",
            ChainError::Nothing => "nothing",
        }
    }
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChainError::NotARecord => f.write_str("this is no record; it was changed, or never was one"),
            ChainError::NotALog => f.write_str("this is no audit log: it does not begin with a record"),
            ChainError::TooLong => write!(f, "the line is longer than the {MAX_RECORD_LEN} bytes that a record may have"),
            ChainError::Newer { format } => write!(
                f,
                "a newer varta-server wrote this (version {format} of the format; this one knows {FORMAT}); use that one"
            ),
            ChainError::Changed => {
                f.write_str("it was changed after it was written, or is sealed with another key: its hash does not fit")
            }
            ChainError::OtherSeal => f.write_str(
                "the file is sealed in another way: with a key, and none is given, or without, and one is given",
            ),
            ChainError::MissingBefore { expected } => {
                write!(f, "records are missing before it: record {expected} ought to stand here")
            }
            ChainError::Repeated => f.write_str("it comes again, or out of order: a later record stands before it"),
            ChainError::OtherLog => f.write_str(
                "it does not follow the record before it (its `prev` is another hash): one of them is of another log",
            ),
            ChainError::NoBeginning => f.write_str(
                "it begins the file and is not of those that begin one: what stood before it was cut away",
            ),
            ChainError::Torn { bytes } => write!(
                f,
                "the last line is not finished ({bytes} bytes): it is just being written, or a crash cut it off"
            ),
            ChainError::CutOff { last } => write!(f, "records are missing at the end: there were {last}"),
            ChainError::NoHead => {
                f.write_str("is missing or empty, and says up to where the log went: nobody can tell what was cut off at its end")
            }
            ChainError::WrongHead => {
                f.write_str("was changed, is sealed with another key, or is of another log: it says where the log ended")
            }
            ChainError::Older => f.write_str("the record that is looked for is older than those of these files"),
            ChainError::Unexpected => f.write_str("the record has another hash than the one that is expected"),
            ChainError::NotFromStart => f.write_str("older records are not among these files"),
            ChainError::Nothing => f.write_str("there are no records"),
        }
    }
}

/// The state of a verification: the last verified record.
#[derive(Debug)]
pub(super) struct Chain<'s> {
    sealer: &'s Authenticator,
    /// `None` before the first record.
    pub(super) last: Option<Link>,
}

impl<'s> Chain<'s> {
    pub(super) const fn new(sealer: &'s Authenticator) -> Self {
        Chain { sealer, last: None }
    }

    /// Accepts the next record, if it continues the chain. The first may be any that begins a file.
    fn take(&mut self, record: &AuditRecord<'_>, begins_file: bool) -> Result<(), ChainError> {
        let begins = record.event == if record.seq == 1 { STARTED } else { CONTINUED };
        // Checked before the hash, which a newer format may compute in another way.
        if begins && let Some(format) = record.format().filter(|format| *format > FORMAT) {
            return Err(ChainError::Newer { format });
        }
        if self.sealer.mac(record.body) != record.hash {
            let other = match self.sealer {
                Authenticator::Plain => &b"\"seal\":\"hmac-sha256\""[..],
                Authenticator::Keyed(_) => b"\"seal\":\"sha256\"",
            };
            let is_other = begins && record.body.windows(other.len()).any(|text| text == other);
            return Err(if is_other { ChainError::OtherSeal } else { ChainError::Changed });
        }
        match self.last {
            Some(Link { seq, .. }) if record.seq <= seq => return Err(ChainError::Repeated),
            Some(Link { seq, .. }) if record.seq > seq + 1 => {
                return Err(ChainError::MissingBefore { expected: seq + 1 });
            }
            Some(Link { hash, .. }) if record.prev != hash => return Err(ChainError::OtherLog),
            None if record.seq == 0 || record.seq == 1 && record.prev != Hash::NONE => {
                return Err(ChainError::OtherLog);
            }
            _ => {}
        }
        if begins_file && !begins {
            return Err(ChainError::NoBeginning);
        }
        self.last = Some(record.link());
        Ok(())
    }

    /// Verifies the records of one file, and passes each valid one to `see`, up to the first fault or the
    /// end.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(super) fn walk(
        &mut self,
        file: impl Read,
        mut see: impl FnMut(&AuditRecord<'_>),
    ) -> io::Result<ChainScan> {
        let mut reader = io::BufReader::with_capacity(MAX_RECORD_LEN, file);
        let mut line = Vec::new();
        let mut walk = ChainScan { lines: 0, bytes: 0, stop: None };
        loop {
            line.clear();
            let length = reader.by_ref().take(MAX_RECORD_LEN as u64 + 1).read_until(b'\n', &mut line)? as u64;
            if length == 0 {
                return Ok(walk);
            }
            let stop = |seq, fault| Some(ScanStop { seq, fault, length });
            let Some(text) = line.strip_suffix(b"\n") else {
                let is_long = line.len() > MAX_RECORD_LEN;
                let fault = if is_long { ChainError::TooLong } else { ChainError::Torn { bytes: length } };
                walk.stop = stop(None, fault);
                return Ok(walk);
            };
            let Some(record) = AuditRecord::parse(text) else {
                walk.stop = stop(None, ChainError::NotARecord);
                return Ok(walk);
            };
            if let Err(fault) = self.take(&record, walk.lines == 0) {
                walk.stop = stop(Some(record.seq), fault);
                return Ok(walk);
            }
            see(&record);
            walk.lines += 1;
            walk.bytes += length;
        }
    }
}

/// The result of scanning a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChainScan {
    /// The number of valid lines.
    pub(super) lines: u64,
    /// Their length in bytes.
    pub(super) bytes: u64,
    /// The first fault; `None` at the end of the file.
    pub(super) stop: Option<ScanStop>,
}

/// The fault at which a scan stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScanStop {
    /// The number in the record, if it could be parsed.
    pub(super) seq: Option<u64>,
    pub(super) fault: ChainError,
    /// The length of the line in bytes.
    pub(super) length: u64,
}

impl ScanStop {
    /// Whether it is a single incomplete line, which makes up the last `bytes` of its file.
    pub(super) fn is_unfinished(&self, bytes: u64) -> bool {
        matches!(self.fault, ChainError::Torn { .. } | ChainError::NotARecord) && self.length == bytes
    }
}

/// A record that a log must contain.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedEntry {
    pub(super) link: Link,
    /// Whether the record has the expected hash; `None` while it was not seen.
    fits: Option<bool>,
}

impl ExpectedEntry {
    pub(super) const fn new(link: Link) -> Self {
        ExpectedEntry { link, fits: None }
    }

    /// Compares a record. One shows its own hash and that of its predecessor.
    pub(super) fn see(&mut self, record: &AuditRecord<'_>) {
        let Link { seq, hash } = self.link;
        if record.seq == seq {
            self.fits = Some(record.hash == hash);
        } else if record.seq.checked_sub(1) == Some(seq) && self.fits.is_none() {
            self.fits = Some(record.prev == hash);
        }
    }

    /// Whether a log that ends at `last` contains the record. `unlike` is the fault if it has another hash.
    pub(super) fn met(&self, last: Option<Link>, unlike: ChainError) -> Result<(), ChainError> {
        match self.fits {
            Some(true) => Ok(()),
            Some(false) => Err(unlike),
            None if last.is_none_or(|last| last.seq < self.link.seq) => {
                Err(ChainError::CutOff { last: self.link.seq })
            }
            None => Err(ChainError::Older),
        }
    }
}
