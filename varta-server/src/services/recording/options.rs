//! What is recorded, where, and how much of it.

use std::path::PathBuf;

use clap::Args;

use crate::base::error::Error;
use crate::base::files::directory::directory_of;
use crate::base::host_check::HostCheck;
use crate::base::options::{Size, parse_size};

/// What is recorded. A group of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct RecordingArgs {
    /// File in which to record beats, for `varta-server replay`
    ///
    /// It must not exist yet; a missing directory is made with mode 0700. Only its owner can read it. It
    /// contains the times of the beats of each agent and the names of processes, but no keys.
    #[arg(long, env = "VARTA_RECORD", value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Maximum length of the recording [default: 256MiB]
    #[arg(long, env = "VARTA_RECORD_LIMIT", value_name = "SIZE", value_parser = parse_size,
          hide_short_help = true)]
    pub record_limit: Option<Size>,
}

impl RecordingArgs {
    /// What these options say; `None` when nothing is recorded.
    ///
    /// # Errors
    ///
    /// A limit that would do nothing without a file.
    pub fn options(self) -> Result<Option<RecordOptions>, Error> {
        match (self.record, self.record_limit) {
            (Some(path), limit) => Ok(Some(RecordOptions {
                path,
                limit: limit.map_or(RecordOptions::DEFAULT_LIMIT, |Size(bytes)| bytes),
            })),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                let fault = "does nothing without --record".to_owned();
                Err(Error::Option { option: "--record-limit", fault })
            }
        }
    }
}

/// The file of a recording, and its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// The file, which must not exist yet.
    pub path: PathBuf,
    /// The most bytes of the file.
    pub limit: u64,
}

impl RecordOptions {
    /// Checks that the file can be made.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        if self.path.symlink_metadata().is_ok() {
            let fault = "is there already; a recording needs a file of its own: give another path with --record, or remove it";
            host.result(Err::<(), _>(Error::configuration_file(&self.path, fault)));
        } else {
            host.directory("--record", directory_of(&self.path));
        }
    }

    /// The default limit in bytes: four million beats.
    pub const DEFAULT_LIMIT: u64 = 256 << 20;
    /// The smallest limit that can be configured, in bytes.
    pub const SMALLEST_LIMIT: u64 = 4_096;

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// A limit that leaves no room.
    pub fn check(&self) -> Result<(), Error> {
        let least = Self::SMALLEST_LIMIT;
        if self.limit < least {
            let fault = format!("{} is less than the least of {least} bytes", self.limit);
            return Err(Error::Option { option: "--record-limit", fault });
        }
        Ok(())
    }
}
