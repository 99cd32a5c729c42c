//! Where recoveries and requests of users are recorded.

use std::path::PathBuf;

use clap::Args;

use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::options::{OptionFaults, Size, parse_size};
use crate::services::audit::mac::Authenticator;

/// The audit log, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The file to append to. Next to it are `FILE.head` and older files: `FILE.1`, `FILE.2` and so on.
    pub path: PathBuf,
    /// The file with the key for the hashes; without a key valid records can be made by any program.
    pub key_file: Option<PathBuf>,
    /// The most bytes of a file before it is rotated. A file has at least one record.
    pub limit: u64,
    /// The number of older files kept; 0 for all.
    pub keep: u32,
}

impl AuditOptions {
    /// The default limit in bytes.
    pub const DEFAULT_LIMIT: u64 = 64 << 20;
    /// The smallest limit in bytes.
    pub const SMALLEST_LIMIT: u64 = 4_096;
    /// The largest limit in bytes: each start verifies a whole file.
    pub const MAX_FILE_LIMIT: u64 = 1 << 30;
    /// The default number of older files.
    pub const DEFAULT_KEEP: u32 = 16;

    /// Checks that the file can be appended to, or made, and that its key can be used.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        host.result(Authenticator::read(self.key_file.as_deref()));
        host.appendable("--audit-log", &self.path);
    }

    /// Checks ranges that the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value is out of range, by its name on the command line.
    pub fn check(&self) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        let AuditOptions { ref path, limit, .. } = *self;
        if path.file_name().is_none() {
            let fault = format!("`{}` is no name of a file", path.display());
            faults.add("--audit-log", fault);
        }
        if !(Self::SMALLEST_LIMIT..=Self::MAX_FILE_LIMIT).contains(&limit) {
            let fault =
                format!("{limit} is not between {} and {} bytes", Self::SMALLEST_LIMIT, Self::MAX_FILE_LIMIT);
            faults.add("--audit-limit", fault);
        }
        faults.into_result()
    }
}

/// Where recoveries are recorded. A group of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct AuditArgs {
    /// File in which recoveries are recorded
    ///
    /// And what users have the server forget. Each record is sealed together with the record before it. Only
    /// its owner can read the file; a missing directory is made with mode 0700. `varta-server audit verify
    /// FILE` finds changed, removed and added records. Only one server may use the file, and no other program
    /// may rename it; FILE.head next to it says how far the log goes.
    #[arg(long, env = "VARTA_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// File with the key that seals the audit log
    ///
    /// 32 or more characters, such as the output of `openssl rand -hex 32`. The file must be closed to others
    /// (chmod 600). Without a key any program that can write to the log can forge all of it.
    #[arg(long, env = "VARTA_AUDIT_KEY_FILE", value_name = "FILE")]
    pub audit_key_file: Option<PathBuf>,

    /// Maximum length of an audit log file before it is renamed to FILE.1 [default: 64MiB]
    #[arg(long, env = "VARTA_AUDIT_LIMIT", value_name = "SIZE", value_parser = parse_size,
          hide_short_help = true)]
    pub audit_limit: Option<Size>,

    /// Number of renamed audit log files that are kept; 0 for all [default: 16]
    #[arg(long, env = "VARTA_AUDIT_KEEP", value_name = "N", hide_short_help = true)]
    pub audit_keep: Option<u32>,
}

impl AuditArgs {
    /// Converts the options; `None` without a log.
    ///
    /// # Errors
    ///
    /// The first option that has no effect without a log.
    pub fn options(&self) -> Result<Option<AuditOptions>, Error> {
        let AuditArgs { audit_log, audit_key_file, audit_limit, audit_keep } = self;
        let Some(path) = audit_log else {
            let mut faults = OptionFaults::default();
            faults.add_useless([
                ("--audit-key-file", audit_key_file.is_some(), false, "--audit-log"),
                ("--audit-limit", audit_limit.is_some(), false, "--audit-log"),
                ("--audit-keep", audit_keep.is_some(), false, "--audit-log"),
            ]);
            return faults.into_result().map(|()| None);
        };
        Ok(Some(AuditOptions {
            path: path.clone(),
            key_file: audit_key_file.clone(),
            limit: audit_limit.map_or(AuditOptions::DEFAULT_LIMIT, |Size(bytes)| bytes),
            keep: audit_keep.unwrap_or(AuditOptions::DEFAULT_KEEP),
        }))
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
