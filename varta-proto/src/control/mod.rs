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
mod encode;
mod kind;
mod label;
mod label_set;
mod name;
mod wire;

pub use decode::Control;
pub use encode::{Attach, EncodedControl, Goodbye, Hello};
pub use kind::{ControlKind, GoodbyeReason};
pub use label::{Label, LabelError};
pub use label_set::{LabelSet, LabelSetError, Labels, MAX_LABELS};
pub use name::{AgentName, NameError};
#[cfg(feature = "secure")]
pub(crate) use wire::MIN_CONTROL_LEN;
pub use wire::{CONTROL_MAGIC, CONTROL_VERSION, MAX_CONTROL_LEN};
