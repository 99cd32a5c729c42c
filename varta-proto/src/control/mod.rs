//! Control datagrams: what an agent says of itself beside its beats.
//!
//! A beat carries no name, no interval and no farewell. An agent that has one of them to tell sends a
//! [`Hello`] when it connects and now and then afterwards, so that a restarted server learns it anew, and a
//! [`Goodbye`] when it is done. Servers that know nothing of control datagrams drop them as malformed and lose
//! nothing; agents that know nothing of them are watched all the same. An agent that shares a
//! [page](crate::page) of memory with its server hands it over with an [`Attach`].
//!
//! ```
//! use varta_proto::control::{AgentName, Control, ControlKind, Hello, Label, LabelSet, MAX_CONTROL_LEN};
//!
//! // Once, where the agent is configured, and where there is somebody to hear of an error.
//! let name = AgentName::parse("billing-worker")?;
//! let mut labels = LabelSet::new();
//! labels.push(Label::new("team", "payments")?)?;
//!
//! // Each time, and it cannot fail.
//! let mut hello = Hello::new(4242, 0, 0, [0xd1; 16]);
//! hello.name = Some(&name);
//! hello.interval_ms = Some(500);
//! hello.labels = &labels;
//! let mut out = [0; MAX_CONTROL_LEN];
//! let datagram = hello.encode(&mut out);
//!
//! let control = Control::decode(&datagram)?;
//! assert_eq!((control.kind(), control.pid()), (ControlKind::Hello, 4242));
//! assert_eq!(control.name(), Some(&name));
//! assert_eq!(control.labels().next(), Some(Label::new("team", "payments")?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # On the wire
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | magic [`CONTROL_MAGIC`], `VC` |
//! | 2 | 1 | version [`CONTROL_VERSION`] |
//! | 3 | 1 | [kind](ControlKind) |
//! | 4 | 4 | pid |
//! | 8 | 8 | timestamp, on the clock of the beats |
//! | 16 | 8 | nonce of the last beat of the session, 0 before the first |
//! | 24 | 2 | length of the body |
//! | 26 | 2 | zero |
//! | 28 | n | body: entries of a tag, a length and a value |
//! | 28 + n | 4 | [CRC-32C](crate::crc32c) of everything before it |
//!
//! All integers are little-endian. Entries with unknown tags are passed over, so the body can grow.
//!
//! # Lengths
//!
//! A receiver tells a control datagram from a beat by its length alone, so one is never as long as a beat of
//! any form: 32 bytes plain, 60 or 64 sealed. A legal one has a session id and therefore at least 50 bytes,
//! or 78 when it is sealed. That leaves plain ones of 60 and of 64, which get an entry of padding and so
//! become 62 and 66. What is padded is the plain datagram, whether or not it is going to be sealed: it
//! is not known then, and sealing adds 28 or 32, which leads from no allowed length to a forbidden one.

mod decode;
mod kind;
mod label;
mod label_set;
mod name;
mod send;

pub use decode::Control;
pub use kind::{ControlKind, GoodbyeReason};
pub use label::{Label, LabelError};
pub use label_set::{LabelSet, LabelSetError, Labels, MAX_LABELS};
pub use name::{AgentName, NameError};
pub use send::{Attach, EncodedControl, Goodbye, Hello};

/// The first two bytes of every control datagram.
pub const CONTROL_MAGIC: [u8; 2] = *b"VC";

/// The version of control datagrams, the third byte of each.
pub const CONTROL_VERSION: u8 = 1;

/// The length of the longest control datagram before it is sealed, in bytes.
pub const MAX_CONTROL_LEN: usize = 512;

/// The length of what comes before the body, in bytes.
const HEAD_LEN: usize = 28;

/// The length of the checksum behind the body, in bytes.
const CRC_LEN: usize = 4;

/// The length of a control datagram without a body, in bytes. A shorter one is none.
pub(crate) const MIN_CONTROL_LEN: usize = HEAD_LEN + CRC_LEN;

/// What an entry of the body is.
mod tag {
    pub(super) const PADDING: u8 = 0;
    pub(super) const SESSION: u8 = 1;
    pub(super) const NAME: u8 = 2;
    pub(super) const INTERVAL: u8 = 3;
    pub(super) const STALL_AFTER: u8 = 4;
    pub(super) const LABEL: u8 = 5;
    pub(super) const UNSENT: u8 = 6;
    pub(super) const REASON: u8 = 7;
    pub(super) const BUSY_FOR: u8 = 8;
}

/// Splits a body into its first entry's tag, that entry's value, and the rest; `None` if the entry runs past
/// the end.
fn split_entry(body: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, len], rest) = body.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(len.into())?;
    Some((tag, value, rest))
}
