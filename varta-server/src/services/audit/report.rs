//! The report of a verification, as text and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use crate::base::error::Error;
use crate::services::audit::chain::ChainError;
use crate::services::audit::mac::Hash;

/// The report of a verification. [`Display`](fmt::Display) writes it as text.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// The files that were verified, the oldest first.
    pub files: Vec<PathBuf>,
    pub(super) seal: &'static str,
    /// The number of valid records.
    pub records: u64,
    pub(super) first: Option<RecordPosition>,
    pub(super) last: Option<RecordPosition>,
    /// The number of the record in the head; `None` if the head was not used.
    pub(super) head: Option<u64>,
    /// The number of the expected record, which was found.
    pub(super) expected: Option<u64>,
    /// The first fault; `None` if the log is as it was written.
    pub broken: Option<Broken>,
}

/// A record in the report.
#[derive(Debug)]
pub(super) struct RecordPosition {
    pub(super) seq: u64,
    pub(super) at: String,
    pub(super) hash: Hash,
}

/// A fault and its position.
#[derive(Debug)]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1, if the fault is in one line.
    pub line: Option<u64>,
    /// The number of the record, if known.
    pub seq: Option<u64>,
    /// The fault.
    pub fault: ChainError,
}

impl Broken {
    fn sentence(&self) -> String {
        let line = self.line.map(|line| format!("line {line}"));
        let record = self.seq.map(|seq| format!("record {seq}"));
        let place: Vec<String> = line.into_iter().chain(record).collect();
        if place.is_empty() {
            self.fault.to_string()
        } else {
            format!("{}: {}", place.join(", "), self.fault)
        }
    }
}

impl VerifyReport {
    /// The report as JSON, in one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let VerifyReport { files, seal, records, first, last, head, expected, broken } = self;
        let place = |place: &Option<RecordPosition>| {
            place.as_ref().map(
                |RecordPosition { seq, at, hash }| json!({"seq": seq, "at": at, "hash": hash.to_string()}),
            )
        };
        let broken = broken.as_ref().map(|broken| {
            json!({
                "file": broken.file.to_string_lossy(), "line": broken.line, "seq": broken.seq,
                "fault": broken.fault.as_str(), "message": broken.fault.to_string(),
            })
        });
        let files: Vec<Value> = files.iter().map(|file| file.to_string_lossy().into()).collect();
        let object = json!({
            "ok": broken.is_none(), "files": files, "seal": seal, "records": records, "first": place(first),
            "last": place(last), "head_seq": head, "expected_seq": expected, "broken": broken,
        });
        format!("{object}\n")
    }

    /// Converts a fault into the error with which the program exits.
    ///
    /// # Errors
    ///
    /// The log has a fault.
    pub fn into_result(self) -> Result<(), Error> {
        match self.broken {
            None => Ok(()),
            Some(broken) => {
                let fault = broken.sentence();
                Err(Error::file(broken.file, fault))
            }
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VerifyReport { files, seal, records, first, last, head, expected, broken } = self;
        for (place, file) in files.iter().enumerate() {
            writeln!(f, "{:<12}{}", if place == 0 { "audit log" } else { "" }, file.display())?;
        }
        if let (Some(first), Some(last)) = (first, last) {
            let (from, to) = (first.seq, last.seq);
            writeln!(f, "records     {records}: {from} to {to}, from {} to {}", first.at, last.at)?;
            if from > 1 {
                writeln!(f, "            begins at record {from}; older records are not among these files")?;
            }
        } else {
            writeln!(f, "records     none")?;
        }
        let trust = match *seal {
            "sha256" => "without a key: who can write to the files can write them all anew",
            _ => "with the key",
        };
        writeln!(f, "sealed      {seal}, {trust}")?;
        if let (Some(last), None) = (last, broken) {
            match head {
                Some(head) if *head == last.seq => writeln!(f, "end         where the head says")?,
                Some(head) => {
                    let behind = last.seq.saturating_sub(*head);
                    writeln!(
                        f,
                        "end         {behind} records behind record {head}, which the head tells of"
                    )?;
                }
                None => writeln!(f, "end         not checked against a head")?,
            }
            if let Some(expected) = expected {
                writeln!(f, "expected    record {expected} is there as it was noted")?;
            }
        }
        if let Some(broken) = broken {
            writeln!(f, "broken      {}", broken.file.display())?;
            return writeln!(f, "            {}", broken.sentence());
        }
        match last {
            Some(RecordPosition { seq, hash, .. }) => writeln!(f, "last        {seq}:{hash}"),
            None => Ok(()),
        }
    }
}
