//! The audit log of recoveries: what this server did, in lines that vouch for one another.
//!
//! Each record holds the hash of the one before it, so a record that was changed, removed, repeated or moved is found; a
//! small file beside the log, its head, says where it ended. With a key nobody without it can make records that fit.
//! `AuditLog` writes, [`verify()`] checks. The form is in docs/AUDIT.md.

mod chain;
mod command;
mod head;
mod log;
mod mac;
pub(in crate::services) mod metrics;
mod options;
mod record;
mod recover;
mod report;
pub(crate) mod service;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use self::chain::Fault;
pub use self::command::{AuditTask, VerifyArgs};
pub use self::mac::Hash;
pub use self::options::{AuditArgs, AuditOptions};
pub use self::record::Link;
pub use self::report::{Broken, Found};
pub use self::verify::{Files, verify};
pub(crate) use self::writer::Trail;
