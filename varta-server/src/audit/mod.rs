//! The audit log of recoveries: what this server did, in lines that vouch for one another.
//!
//! Each record holds the hash of the one before it, so a record that was changed, removed, repeated or moved is found; a
//! small file beside the log, its head, says where it ended. With a key nobody without it can make records that fit.
//! `AuditLog` writes, [`verify()`] checks. The form is in docs/AUDIT.md.

mod chain;
mod head;
mod left;
mod log;
mod record;
mod report;
mod seal;
#[cfg(test)]
mod tests;
mod verify;

use std::path::PathBuf;

pub use self::chain::Fault;
pub(crate) use self::log::AuditLog;
pub use self::record::Link;
pub use self::report::{Broken, Found};
pub use self::seal::Hash;
pub use self::verify::{Files, verify};

use crate::error::Error;

/// Where the audit log is, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The file that is written. Beside it are `FILE.head`, and older ones: `FILE.1`, `FILE.2` and so on.
    pub path: PathBuf,
    /// The file with the key that seals the records; without one anybody can make records that fit.
    pub key_file: Option<PathBuf>,
    /// The most bytes of one file before the next is begun. A file has at least one record.
    pub limit: u64,
    /// How many older files are kept; 0 for all.
    pub keep: u32,
}

impl AuditOptions {
    /// The most bytes of a file if nobody says otherwise.
    pub const DEFAULT_LIMIT: u64 = 64 << 20;
    /// The least that a file can be limited to.
    pub const SMALLEST_LIMIT: u64 = 4_096;
    /// The most that a file can be limited to: all of it is checked at the start.
    pub const LARGEST_LIMIT: u64 = 1 << 30;
    /// How many older files are kept if nobody says otherwise.
    pub const DEFAULT_KEEP: u32 = 16;

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense, by its name on the command line.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let AuditOptions { ref path, limit, .. } = *self;
        if path.file_name().is_none() {
            let fault = format!("`{}` is no name of a file", path.display());
            return Err(Error::Option { option: "--audit-log", fault });
        }
        if !(Self::SMALLEST_LIMIT..=Self::LARGEST_LIMIT).contains(&limit) {
            let fault =
                format!("{limit} is not between {} and {} bytes", Self::SMALLEST_LIMIT, Self::LARGEST_LIMIT);
            return Err(Error::Option { option: "--audit-limit", fault });
        }
        Ok(())
    }
}
