//! The format of a record: one line of JSON that is verified without a JSON parser.
//!
//! `{"seq":N,"at":"…","event":"…",<fields>,"prev":"<64 digits>","hash":"<64 digits>"}`. The members at the
//! beginning and at the end have fixed positions, so that a line is verified by its bytes. A record is never
//! serialized again from parsed values.

use std::io;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::base::time::rfc3339;
use crate::services::audit::mac::{Authenticator, Hash};

/// The most bytes of a record, newline included.
pub(crate) const MAX_RECORD_LEN: usize = 64 << 10;
/// What every record begins with.
pub(super) const RECORD_START: &[u8] = b"{\"seq\":";
/// The version of the format, which the first record of each file states.
pub(super) const FORMAT: u64 = 1;
/// The event of the first record of a log.
pub(super) const STARTED: &str = "log_started";
/// The event of the first record of each later file.
pub(super) const CONTINUED: &str = "log_continued";
/// The event that records a cut after the record before it.
pub(super) const REPAIRED: &str = "repaired";

/// The event that records that another program cut the file before this one off.
pub(super) const CUT_OFF: &str = "cut_off";
/// The event that records the decision to begin this log in the place of another.
pub(super) const RESTARTED: &str = "restarted";

/// The keys of every record, which no field may use.
const KEYS: [&str; 5] = ["seq", "at", "event", "prev", "hash"];
/// The length of `2026-11-23T13:12:02.000Z` in bytes.
const TIME: usize = 24;
const MAX_EVENT_LEN: usize = 64;

/// A position in a log: the number of a record and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The number; the first record has 1.
    pub seq: u64,
    /// The hash.
    pub hash: Hash,
}

impl Link {
    /// The position before the first record.
    pub(super) const START: Link = Link { seq: 0, hash: Hash::NONE };

    /// Parses `SEQ:HASH`.
    ///
    /// # Errors
    ///
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (seq, hash) = text.split_once(':').ok_or(Self::FORM)?;
        let seq = number(seq.as_bytes()).ok_or(Self::FORM)?;
        Ok(Link { seq, hash: Hash::parse(hash.as_bytes()).ok_or(Self::FORM)? })
    }

    const FORM: &str =
        "is not SEQ:HASH, a record's number and 64 hexadecimal digits, as `audit verify` prints it";
}

/// A record before it is written.
#[derive(Debug)]
pub(super) struct AuditEntry<'e> {
    pub(super) at: SystemTime,
    pub(super) event: &'e str,
    pub(super) fields: Map<String, Value>,
}

impl AuditEntry<'_> {
    /// Writes the record that follows `last` into `line`, replacing its content, and returns the new
    /// position.
    ///
    /// # Errors
    ///
    /// The name of the event has characters other than small letters, digits and `_`, a field has a key that
    /// every record has, or the line is longer than [`MAX_RECORD_LEN`].
    pub(super) fn compose(&self, last: Link, sealer: &Authenticator, line: &mut Vec<u8>) -> io::Result<Link> {
        let refused = |fault: String| Err(io::Error::new(io::ErrorKind::InvalidInput, fault));
        let AuditEntry { at, event, ref fields } = *self;
        if !is_event(event.as_bytes()) {
            return refused(format!("`{}` is no name of an event for the audit log", event.escape_debug()));
        }
        if let Some(key) = KEYS.into_iter().find(|key| fields.contains_key(*key)) {
            return refused(format!("a field of a record cannot be called `{key}`"));
        }
        let seq = last.seq.saturating_add(1);
        line.clear();
        let start = format!("{{\"seq\":{seq},\"at\":\"{}\",\"event\":\"{event}\"", rfc3339(at));
        line.extend_from_slice(start.as_bytes());
        for (key, value) in fields {
            line.push(b',');
            serde_json::to_writer(&mut *line, key)?;
            line.push(b':');
            serde_json::to_writer(&mut *line, value)?;
        }
        line.extend_from_slice(format!(",\"prev\":\"{}\"", last.hash).as_bytes());
        let hash = sealer.mac(line);
        line.extend_from_slice(format!(",\"hash\":\"{hash}\"}}\n").as_bytes());
        if line.len() > MAX_RECORD_LEN {
            return refused(format!("a record of {} bytes is longer than {MAX_RECORD_LEN}", line.len()));
        }
        Ok(Link { seq, hash })
    }
}

/// A line in the format of a record. Its hash is not verified yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct AuditRecord<'l> {
    pub(super) seq: u64,
    pub(super) at: &'l str,
    pub(super) event: &'l str,
    pub(super) prev: Hash,
    pub(super) hash: Hash,
    /// The bytes under the hash.
    pub(super) body: &'l [u8],
}

impl<'l> AuditRecord<'l> {
    /// Parses a line without its newline.
    pub(super) fn parse(line: &'l [u8]) -> Option<Self> {
        let (body, hash) = split_hash(line, b",\"hash\":\"", b"\"}")?;
        let (_, prev) = split_hash(body, b",\"prev\":\"", b"\"")?;
        let rest = body.strip_prefix(RECORD_START)?;
        let (seq, rest) = rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
        let (at, rest) = rest.strip_prefix(b",\"at\":\"")?.split_at_checked(TIME)?;
        let rest = rest.strip_prefix(b"\",\"event\":\"")?;
        let event = &rest[..rest.iter().position(|byte| *byte == b'"')?];
        let is_time = |byte: &u8| byte.is_ascii_digit() || b"-:.TZ".contains(byte);
        if !is_event(event) || !at.iter().all(is_time) {
            return None;
        }
        let [at, event] = [at, event].map(str::from_utf8);
        Some(AuditRecord { seq: number(seq)?, at: at.ok()?, event: event.ok()?, prev, hash, body })
    }

    /// The version of the format, which the first record of a file states.
    pub(super) fn format(&self) -> Option<u64> {
        const KEY: &[u8] = b",\"format\":";
        let at = self.body.windows(KEY.len()).position(|text| text == KEY)?;
        let rest = &self.body[at + KEY.len()..];
        number(&rest[..rest.iter().take_while(|byte| byte.is_ascii_digit()).count()])
    }

    pub(super) const fn link(&self) -> Link {
        Link { seq: self.seq, hash: self.hash }
    }
}

/// Splits off the hash at the end of a line, between `before` and `after`.
pub(super) fn split_hash<'l>(line: &'l [u8], before: &[u8], after: &[u8]) -> Option<(&'l [u8], Hash)> {
    let line = line.strip_suffix(after)?;
    let (line, hash) = line.split_at_checked(line.len().checked_sub(Hash::TEXT)?)?;
    Some((line.strip_suffix(before)?, Hash::parse(hash)?))
}

/// Parses a number in the form that the writer uses: no sign and no leading zeros.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_ours =
        digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    if is_ours { str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

fn is_event(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    (1..=MAX_EVENT_LEN).contains(&name.len()) && name.iter().all(is_part)
}
