//! The constants of a control datagram: its lengths, its header, and the tags of the entries in its body.

use super::AgentName;

/// The first two bytes of every control datagram.
pub const CONTROL_MAGIC: [u8; 2] = *b"VC";

/// The version of control datagrams, the third byte of each.
pub const CONTROL_VERSION: u8 = 1;

/// The maximum length of a control datagram before it is sealed, in bytes.
pub const MAX_CONTROL_LEN: usize = 512;

/// The length of the header, in bytes.
pub(super) const HEAD_LEN: usize = 28;

/// The length of the checksum after the body, in bytes.
pub(super) const CRC_LEN: usize = 4;

/// The length of a control datagram with an empty body, in bytes: the minimum of any control datagram.
pub(crate) const MIN_CONTROL_LEN: usize = HEAD_LEN + CRC_LEN;

/// The maximum length of the entries of a Hello other than its labels, in bytes: the entries below, each with
/// its tag and its length.
pub(super) const MAX_HELLO_FIELDS_LEN: usize = {
    let session = 2 + 16;
    let name = 2 + AgentName::MAX_LEN;
    let interval = 2 + 4;
    let stall_after = 2 + 4;
    let unsent = 2 + 8;
    let busy_for = 2 + 4;
    let no_progress_after = 2 + 4;
    session + name + interval + stall_after + unsent + busy_for + no_progress_after
};

/// The maximum length of the words in a Report, in bytes.
pub(super) const MAX_SAID_LEN: usize = 240;

/// The tags of the entries in a body.
pub(super) mod tag {
    pub(crate) const PADDING: u8 = 0;
    pub(crate) const SESSION: u8 = 1;
    pub(crate) const NAME: u8 = 2;
    pub(crate) const INTERVAL: u8 = 3;
    pub(crate) const STALL_AFTER: u8 = 4;
    pub(crate) const LABEL: u8 = 5;
    pub(crate) const UNSENT: u8 = 6;
    pub(crate) const REASON: u8 = 7;
    pub(crate) const BUSY_FOR: u8 = 8;
    pub(crate) const EVENT: u8 = 9;
    pub(crate) const SCHEDULE: u8 = 10;
    pub(crate) const TIMEZONE: u8 = 11;
    pub(crate) const GRACE: u8 = 12;
    pub(crate) const LONGEST_RUN: u8 = 13;
    pub(crate) const SAID: u8 = 14;
    pub(crate) const CHILD: u8 = 15;
    pub(crate) const ALARM_ON_OVERLAP: u8 = 16;
    pub(crate) const NO_PROGRESS_AFTER: u8 = 17;
}

/// Splits a body into its first entry's tag, that entry's value, and the rest; `None` if the entry extends
/// past the end.
pub(super) fn split_entry(body: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, len], rest) = body.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(len.into())?;
    Some((tag, value, rest))
}
