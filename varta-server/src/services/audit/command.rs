//! The task that verifies an audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::base::error::Error;
use crate::base::progress::Progress;
use crate::base::stdout::print;
use crate::services::audit::record::Link;
use crate::services::audit::restart::{parse_reason, restart};
use crate::services::audit::verify::{Files, verify_showing};

/// What can be done with an audit log.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum AuditTask {
    /// Verify that an audit log is as it was written
    ///
    /// No record of it was changed, removed, repeated or moved.
    ///
    /// Exit status: 0 if the log is as it was written; 1 if it is not, or cannot be read. docs/AUDIT.md
    /// explains what that proves.
    Verify(VerifyArgs),
    /// Begin a new audit log where the server cannot continue one
    ///
    /// Moves FILE, FILE.head, FILE.1 and so on aside, to FILE.before-TIME, and keeps them. The new log says who
    /// decided that, why, and what was wrong. A running server goes on with it, and acts again.
    Restart(RestartArgs),
}

/// Which log to begin anew, and why.
#[derive(Clone, Debug, Args)]
pub struct RestartArgs {
    /// File of --audit-log
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Why the old log cannot be continued; stands in the new one
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub why: String,

    /// File with the key that seals the new log, if there is one
    #[arg(long, value_name = "KEY")]
    pub key_file: Option<PathBuf>,
}

/// Which log to verify, and against what.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Files of the log, the oldest first
    ///
    /// With only one file, FILE.1 and so on are read before it.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// File with the key that seals the log, if there is one
    #[arg(long, value_name = "KEY")]
    pub key_file: Option<PathBuf>,

    /// Last record as an earlier run printed it
    ///
    /// The log must still have it, unchanged.
    #[arg(long, value_name = "SEQ:HASH", value_parser = Link::parse)]
    pub expect_last: Option<Link>,

    /// Report a fault if the first record of the log is not in the files
    #[arg(long)]
    pub from_start: bool,

    /// Do not use FILE.head
    ///
    /// For files that were moved away from it, and files that are not the end of a log.
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
    /// A file cannot be read or moved, the output cannot be written, or the log is not as it was written, which
    /// is also printed.
    pub fn run(&self) -> Result<(), Error> {
        match self {
            AuditTask::Verify(args) => args.run(),
            AuditTask::Restart(RestartArgs { file, why, key_file }) => {
                let aside = restart(file, key_file.as_deref(), why)?;
                print(&format!("{} begins anew; the log before it is {}\n", file.display(), aside.display()))
            }
        }
    }
}

impl VerifyArgs {
    fn run(&self) -> Result<(), Error> {
        let VerifyArgs { ref files, ref key_file, expect_last, from_start, without_head, json } = *self;
        let (paths, key_file) = (files.clone(), key_file.clone());
        let files = Files { paths, key_file, expect_last, from_start, without_head };
        let progress = Progress::of_command("verifying");
        let found = verify_showing(&files, &progress)?;
        drop(progress);
        print(&if json { found.to_json() } else { found.to_string() })?;
        found.into_result()
    }
}
