//! The task that verifies an audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::base::error::Error;
use crate::base::stdout::print;
use crate::services::audit::record::Link;
use crate::services::audit::verify::{Files, verify};

/// What can be done with an audit log.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditTask {
    /// Says whether an audit log is what was written: nothing changed, removed, repeated or moved
    ///
    /// Exit status: 0 when it is; 1 when it is not, or cannot be read. docs/AUDIT.md says what that proves.
    Verify(VerifyArgs),
}

/// Which log to verify, and against what.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The files, the oldest first; of one alone, FILE.1 and so on are taken before it
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// File with the key that seals the log, if there is one
    #[arg(long, value_name = "KEY")]
    pub key_file: Option<PathBuf>,

    /// What an earlier run printed as the last record: it must be there still, as it was
    #[arg(long, value_name = "SEQ:HASH", value_parser = Link::parse)]
    pub expect_last: Option<Link>,

    /// Count it as a fault when the log's first record is not among the files
    #[arg(long)]
    pub from_start: bool,

    /// Do without FILE.head: for files that were moved away, and those that are not the end of a log
    #[arg(long)]
    pub without_head: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl AuditTask {
    /// Runs the task, and prints its result.
    ///
    /// # Errors
    ///
    /// A file cannot be read, the output cannot be written, or the log is not as it was written, which is
    /// also printed.
    pub fn run(&self) -> Result<(), Error> {
        let AuditTask::Verify(args) = self;
        let VerifyArgs { ref files, ref key_file, expect_last, from_start, without_head, json } = *args;
        let (paths, key_file) = (files.clone(), key_file.clone());
        let found = verify(&Files { paths, key_file, expect_last, from_start, without_head })?;
        print(&if json { found.to_json() } else { found.to_string() })?;
        found.into_result()
    }
}
