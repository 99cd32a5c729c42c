//! The options of the audit log, and the task that verifies one.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::task::print;
use crate::audit::{AuditOptions, Files, Link, verify};
use crate::error::Error;

/// Where recoveries are recorded. A group of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct AuditArgs {
    /// File in which to record recoveries, each record sealed together with the one before it
    ///
    /// Only its owner can read it. `varta-server audit verify FILE` finds what was changed, removed or added. It may be one
    /// server's alone, and nobody else may rename it; FILE.head beside it says up to where it goes.
    #[arg(long, env = "VARTA_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// File with the key that seals the audit log: 32 or more characters, as `openssl rand -hex 32` makes them
    ///
    /// It must be closed to others (chmod 600). Without it whoever can write to the log can make it up anew.
    #[arg(long, env = "VARTA_AUDIT_KEY_FILE", value_name = "FILE")]
    pub audit_key_file: Option<PathBuf>,

    /// How long a file of the audit log may become before it is renamed to FILE.1, in bytes [default: 67108864]
    #[arg(long, env = "VARTA_AUDIT_LIMIT", value_name = "BYTES")]
    pub audit_limit: Option<u64>,

    /// How many renamed files of the audit log are kept; 0 for all [default: 16]
    #[arg(long, env = "VARTA_AUDIT_KEEP", value_name = "N")]
    pub audit_keep: Option<u32>,
}

impl AuditArgs {
    /// What these options say; `None` when no log is wanted.
    ///
    /// # Errors
    ///
    /// The first option that would do nothing without a log.
    pub fn options(&self) -> Result<Option<AuditOptions>, Error> {
        let AuditArgs { audit_log, audit_key_file, audit_limit, audit_keep } = self;
        let Some(path) = audit_log else {
            let options = [
                ("--audit-key-file", audit_key_file.is_some()),
                ("--audit-limit", audit_limit.is_some()),
                ("--audit-keep", audit_keep.is_some()),
            ];
            return match options.into_iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((option, _)) => {
                    Err(Error::Option { option, fault: "does nothing without --audit-log".to_owned() })
                }
            };
        };
        Ok(Some(AuditOptions {
            path: path.clone(),
            key_file: audit_key_file.clone(),
            limit: audit_limit.unwrap_or(AuditOptions::DEFAULT_LIMIT),
            keep: audit_keep.unwrap_or(AuditOptions::DEFAULT_KEEP),
        }))
    }
}

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
