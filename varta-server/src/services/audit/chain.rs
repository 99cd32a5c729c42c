//! The chain: whether records follow one another as they were written.

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::services::audit::mac::{Hash, Sealer};
use crate::services::audit::record::{CONTINUED, FORMAT, Link, MOST_RECORD, Record, STARTED};

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The line does not have the form of a record.
    NotARecord,
    /// The line is longer than a record may be.
    TooLong,
    /// A newer server wrote the file.
    Newer {
        /// The version of its format.
        format: u64,
    },
    /// The record's hash does not fit what it says.
    Changed,
    /// The file was sealed in another way: with a key and not without, or the other way round.
    OtherSeal,
    /// Records are missing before this one.
    MissingBefore {
        /// The record that ought to be here.
        expected: u64,
    },
    /// The record comes again, or too late.
    Repeated,
    /// The record does not follow the one before it: one of the two is of another log.
    OtherLog,
    /// The file does not begin with a record that begins one.
    NoBeginning,
    /// The last line is not finished.
    Torn {
        /// What there is of it, in bytes.
        bytes: u64,
    },
    /// Records are missing at the end.
    CutOff {
        /// The last of those that there were.
        last: u64,
    },
    /// The file that says where the log ended is missing, or empty.
    NoHead,
    /// The file that says where the log ended was changed, or is of another log.
    WrongHead,
    /// The record that is looked for stands in an older file.
    Older,
    /// A record has another hash than is expected of it.
    Unexpected,
    /// The log does not begin here.
    NotFromStart,
    /// There are no records.
    Nothing,
}

impl Fault {
    /// A name for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::NotARecord => "not_a_record",
            Fault::TooLong => "too_long",
            Fault::Newer { .. } => "newer",
            Fault::Changed => "changed",
            Fault::OtherSeal => "other_seal",
            Fault::MissingBefore { .. } => "missing_before",
            Fault::Repeated => "repeated",
            Fault::OtherLog => "other_log",
            Fault::NoBeginning => "no_beginning",
            Fault::Torn { .. } => "torn",
            Fault::CutOff { .. } => "cut_off",
            Fault::NoHead => "no_head",
            Fault::WrongHead => "wrong_head",
            Fault::Older => "older",
            Fault::Unexpected => "unexpected",
            Fault::NotFromStart => "not_from_start",
            Fault::Nothing => "nothing",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotARecord => f.write_str("this is no record; it was changed, or never was one"),
            Fault::TooLong => write!(f, "the line is longer than the {MOST_RECORD} bytes that a record may have"),
            Fault::Newer { format } => write!(
                f,
                "a newer varta-server wrote this (version {format} of the format; this one knows {FORMAT}); use that one"
            ),
            Fault::Changed => {
                f.write_str("it was changed after it was written, or is sealed with another key: its hash does not fit")
            }
            Fault::OtherSeal => f.write_str(
                "the file is sealed in another way: with a key, and none is given, or without, and one is given",
            ),
            Fault::MissingBefore { expected } => {
                write!(f, "records are missing before it: record {expected} ought to stand here")
            }
            Fault::Repeated => f.write_str("it comes again, or out of order: a later record stands before it"),
            Fault::OtherLog => f.write_str(
                "it does not follow the record before it (its `prev` is another hash): one of them is of another log",
            ),
            Fault::NoBeginning => f.write_str(
                "it begins the file and is not of those that begin one: what stood before it was cut away",
            ),
            Fault::Torn { bytes } => write!(
                f,
                "the last line is not finished ({bytes} bytes): it is just being written, or a crash cut it off"
            ),
            Fault::CutOff { last } => write!(f, "records are missing at the end: there were {last}"),
            Fault::NoHead => {
                f.write_str("is missing or empty, and says up to where the log went: nobody can tell what was cut off at its end")
            }
            Fault::WrongHead => {
                f.write_str("was changed, is sealed with another key, or is of another log: it says where the log ended")
            }
            Fault::Older => f.write_str("the record that is looked for is older than those of these files"),
            Fault::Unexpected => f.write_str("the record has another hash than the one that is expected"),
            Fault::NotFromStart => f.write_str("older records are not among these files"),
            Fault::Nothing => f.write_str("there are no records"),
        }
    }
}

/// The records up to here.
#[derive(Debug)]
pub(super) struct Chain<'s> {
    sealer: &'s Sealer,
    /// The last of them; `None` before the first.
    pub(super) last: Option<Link>,
}

impl<'s> Chain<'s> {
    pub(super) const fn new(sealer: &'s Sealer) -> Self {
        Chain { sealer, last: None }
    }

    /// Takes the next record, if it is the next one. The first may be any that begins a file.
    fn take(&mut self, record: &Record<'_>, begins_file: bool) -> Result<(), Fault> {
        let begins = record.event == if record.seq == 1 { STARTED } else { CONTINUED };
        // Before the hash: another format may make it in another way.
        if begins && let Some(format) = record.format().filter(|format| *format > FORMAT) {
            return Err(Fault::Newer { format });
        }
        if self.sealer.seal(record.body) != record.hash {
            let other = match self.sealer {
                Sealer::Plain => &b"\"seal\":\"hmac-sha256\""[..],
                Sealer::Keyed(_) => b"\"seal\":\"sha256\"",
            };
            let is_other = begins && record.body.windows(other.len()).any(|text| text == other);
            return Err(if is_other { Fault::OtherSeal } else { Fault::Changed });
        }
        match self.last {
            Some(Link { seq, .. }) if record.seq <= seq => return Err(Fault::Repeated),
            Some(Link { seq, .. }) if record.seq > seq + 1 => {
                return Err(Fault::MissingBefore { expected: seq + 1 });
            }
            Some(Link { hash, .. }) if record.prev != hash => return Err(Fault::OtherLog),
            None if record.seq == 0 || record.seq == 1 && record.prev != Hash::NONE => {
                return Err(Fault::OtherLog);
            }
            _ => {}
        }
        if begins_file && !begins {
            return Err(Fault::NoBeginning);
        }
        self.last = Some(record.link());
        Ok(())
    }

    /// Takes the records of one file, as far as they are whole, and shows each to `see`.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(super) fn walk(&mut self, file: impl Read, mut see: impl FnMut(&Record<'_>)) -> io::Result<Walk> {
        let mut reader = io::BufReader::with_capacity(MOST_RECORD, file);
        let mut line = Vec::new();
        let mut walk = Walk { lines: 0, bytes: 0, stop: None };
        loop {
            line.clear();
            let length = reader.by_ref().take(MOST_RECORD as u64 + 1).read_until(b'\n', &mut line)? as u64;
            if length == 0 {
                return Ok(walk);
            }
            let stop = |seq, fault| Some(Stop { seq, fault, length });
            let Some(text) = line.strip_suffix(b"\n") else {
                let is_long = line.len() > MOST_RECORD;
                let fault = if is_long { Fault::TooLong } else { Fault::Torn { bytes: length } };
                walk.stop = stop(None, fault);
                return Ok(walk);
            };
            let Some(record) = Record::parse(text) else {
                walk.stop = stop(None, Fault::NotARecord);
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

/// How far a file is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// Whole lines.
    pub(super) lines: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// What comes then; `None` for the end of the file.
    pub(super) stop: Option<Stop>,
}

/// Where a file is not whole any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    /// The number that the record gives itself.
    pub(super) seq: Option<u64>,
    pub(super) fault: Fault,
    /// The bytes of the line.
    pub(super) length: u64,
}

impl Stop {
    /// Whether it is one line that was not finished, and the last `bytes` of its file are nothing else.
    pub(super) fn is_unfinished(&self, bytes: u64) -> bool {
        matches!(self.fault, Fault::Torn { .. } | Fault::NotARecord) && self.length == bytes
    }
}

/// A place that a log must come by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) link: Link,
    /// Whether the record there has the hash; `None` while it was not met.
    fits: Option<bool>,
}

impl Mark {
    pub(super) const fn new(link: Link) -> Self {
        Mark { link, fits: None }
    }

    /// Takes note of a record. One tells its own hash and that of the one before it.
    pub(super) fn see(&mut self, record: &Record<'_>) {
        let Link { seq, hash } = self.link;
        if record.seq == seq {
            self.fits = Some(record.hash == hash);
        } else if record.seq.checked_sub(1) == Some(seq) && self.fits.is_none() {
            self.fits = Some(record.prev == hash);
        }
    }

    /// Whether a log came by that ends at `last`. `unlike` is what is wrong where it has another hash there.
    pub(super) fn met(&self, last: Option<Link>, unlike: Fault) -> Result<(), Fault> {
        match self.fits {
            Some(true) => Ok(()),
            Some(false) => Err(unlike),
            None if last.is_none_or(|last| last.seq < self.link.seq) => {
                Err(Fault::CutOff { last: self.link.seq })
            }
            None => Err(Fault::Older),
        }
    }
}
