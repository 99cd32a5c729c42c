//! Control datagrams: what an agent sends in addition to its beats.
//!
//! A beat carries no name, no interval and no goodbye. An agent with any of these sends a [`Hello`] when it
//! connects and at intervals afterwards, so that a restarted server learns it again, and a [`Goodbye`] when
//! it ends. Servers without support for control datagrams drop them as malformed and lose nothing; agents
//! without them are monitored all the same. An agent that shares a [page](crate::page) of memory with its
//! server hands it over with an [`Attach`]. A process that speaks for something which is known by its name alone,
//! such as a job of cron, sends a [`Report`] and may end.
//!
//! ```
//! use varta_proto::control::{AgentName, Control, ControlKind, Hello, Label, LabelSet, MAX_CONTROL_LEN};
//!
//! // Once, when the agent is configured: an error can be reported here.
//! let name = AgentName::parse("billing-worker")?;
//! let mut labels = LabelSet::new();
//! labels.push(Label::new("team", "payments")?)?;
//!
//! // For each Hello; encoding cannot fail.
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
//! All integers are little-endian. Entries with unknown tags are skipped, so the body can grow.
//!
//! | tag | in | value |
//! |---|---|---|
//! | 0 | all | padding, ignored |
//! | 1 | all, required | session id, 16 bytes |
//! | 2 | Hello, Report (required) | [name](AgentName) |
//! | 3 | Hello | interval between beats in milliseconds, `u32` |
//! | 4 | Hello, Report | stall timeout in milliseconds, `u32` |
//! | 5 | Hello | [label](Label) `key=value` |
//! | 6 | Hello, Goodbye | beats that were not sent, `u64` |
//! | 7 | Goodbye | [reason](GoodbyeReason), one byte |
//! | 8 | Hello | time from now on in which the agent may be silent in milliseconds, `u32` |
//! | 9 | Report, required | [event](ReportEvent): 0 beat, 1 started, 2 ended, 3 failed, 4 declared, 5 said; behind 3 its exit status, if there is one |
//! | 10 | Report | schedule, UTF-8 of 1 to 255 bytes |
//! | 11 | Report | name of the time zone of the schedule, UTF-8 of 1 to 64 bytes |
//! | 12 | Report | how late it may begin in milliseconds, `u64` |
//! | 13 | Report | how long it may take in milliseconds, `u64` |
//! | 14 | Report | words of the sending process, UTF-8 of at most 240 bytes |
//! | 15 | Report | the child of the sending process that does its work, `u32`: its pid as the parent knows it |
//! | 16 | Report | an overlap of runs is an alarm; without a value |
//! | 17 | Hello | the payload is a counter, which may stand for so many milliseconds, `u32`; 0 leaves that to the server |
//!
//! A Report is a kind of its own, which a server without support for it refuses as a whole: as a Hello it would
//! name the process that sent it. Its timestamp and nonce are zero.
//!
//! # Lengths
//!
//! A receiver distinguishes a control datagram from a beat by its length alone, so a control datagram never
//! has the length of any form of beat: 32 bytes plain, 60 or 64 sealed. A valid control datagram has a
//! session id and therefore at least 50 bytes, or 78 sealed. Plain ones of 60 or 64 bytes get a padding entry
//! and become 62 or 66 bytes long. The plain datagram is padded in any case, because the encoder does not
//! know whether it will be sealed; sealing adds 28 or 32 bytes, which turns no allowed length into a
//! forbidden one.

mod decode;
mod encode;
mod event;
mod kind;
mod label;
mod label_set;
mod name;
mod report;
mod wire;

pub use decode::Control;
pub use encode::{Attach, EncodedControl, Goodbye, Hello};
pub use event::{Declaration, ReportEvent};
pub use kind::{ControlKind, GoodbyeReason};
pub use label::{Label, LabelError};
pub use label_set::{LabelSet, LabelSetError, Labels, MAX_LABELS};
pub use name::{AgentName, NameError};
pub use report::Report;
#[cfg(feature = "secure")]
pub(crate) use wire::MIN_CONTROL_LEN;
pub use wire::{CONTROL_MAGIC, CONTROL_VERSION, MAX_CONTROL_LEN};
