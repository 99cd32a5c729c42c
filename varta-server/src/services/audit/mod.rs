//! The audit log: a tamper-evident record of recovery actions.
//!
//! Each record holds the hash of the one before it, so that a changed, removed, repeated or moved record is
//! found. A small file next to the log, its head, holds the last record, so that removed records at the end
//! are found too. With a key, valid records can only be made with that key. `AuditLog` writes, [`verify()`]
//! checks; docs/AUDIT.md documents the format.

mod chain;
mod command;
mod guarded;
mod head;
mod log;
mod mac;
pub(in crate::services) mod metrics;
mod options;
mod record;
mod recover;
mod report;
mod restart;
pub(crate) mod service;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use self::chain::ChainError;
pub use self::command::{AuditTask, RestartArgs, VerifyArgs};
pub use self::mac::Hash;
pub use self::options::{AuditArgs, AuditOptions};
pub use self::record::Link;
pub use self::report::{Broken, VerifyReport};
pub use self::verify::{Files, verify};
pub(crate) use self::writer::AuditWriter;
