//! The options of the audit log, and the task that verifies one.

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
    /// Does what is asked, and prints what came of it.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, nothing can be printed, or the log is not what was written: then that is printed too.
    pub fn run(&self) -> Result<(), Error> {
        let AuditTask::Verify(args) = self;
        let VerifyArgs { ref files, ref key_file, expect_last, from_start, without_head, json } = *args;
        let (paths, key_file) = (files.clone(), key_file.clone());
        let found = verify(&Files { paths, key_file, expect_last, from_start, without_head })?;
        print(&if json { found.to_json() } else { found.to_string() })?;
        found.into_result()
    }
}

#[cfg(test)]
mod tests {
    use crate::services::audit::options::{AuditArgs, AuditOptions};
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        audit: AuditArgs,
    }

    fn options(words: &[&str]) -> Result<Option<AuditOptions>, Error> {
        let arguments = ["command"].iter().chain(words);
        Command::try_parse_from(arguments).unwrap().audit.options()
    }

    #[test]
    fn a_log_has_defaults_and_its_options_do_nothing_without_it() {
        assert_eq!(options(&[]).unwrap(), None);
        let plain = AuditOptions { path: "a".into(), key_file: None, limit: 67_108_864, keep: 16 };
        assert_eq!(options(&["--audit-log=a"]).unwrap(), Some(plain));
        let words = ["--audit-log=a", "--audit-key-file=k", "--audit-limit=4096", "--audit-keep=0"];
        let whole = AuditOptions { path: "a".into(), key_file: Some("k".into()), limit: 4_096, keep: 0 };
        assert_eq!(options(&words).unwrap(), Some(whole));
        for option in &words[1..] {
            let refused = options(&[option]).unwrap_err();
            let (name, _) = option.split_once('=').unwrap();
            assert_eq!(refused.to_string(), format!("{name}: does nothing without --audit-log"));
            assert_eq!(refused.exit_status(), 2);
        }
    }
}
