//! Where events are written, and how much of them is kept.

use std::path::PathBuf;

use clap::Args;

use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::options::{OptionFaults, Size, parse_size};

/// Where changes of verdict are written. A group of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// File for every change of verdict, as a line of JSON
    ///
    /// The server appends to it, and makes a missing directory with mode 0750. docs/EVENTS.md lists the fields.
    /// logrotate and similar programs may rename the file: the server creates a new one within a second of the
    /// next change.
    #[arg(long, env = "VARTA_EVENTS_FILE", value_name = "FILE")]
    pub events_file: Option<PathBuf>,

    /// Maximum length of the events file before it is renamed to FILE.1 [default: 64MiB]
    #[arg(long, env = "VARTA_EVENTS_LIMIT", value_name = "SIZE", value_parser = parse_size,
          hide_short_help = true)]
    pub events_limit: Option<Size>,

    /// Number of renamed events files that are kept; 0 for all [default: 4]
    #[arg(long, env = "VARTA_EVENTS_KEEP", value_name = "N", hide_short_help = true)]
    pub events_keep: Option<u32>,
}

impl EventsArgs {
    /// Converts the options; `None` without a file.
    ///
    /// # Errors
    ///
    /// The first option that has no effect without a file.
    pub fn options(&self) -> Result<Option<EventsOptions>, Error> {
        let EventsArgs { events_file, events_limit, events_keep } = self;
        let Some(path) = events_file else {
            let mut faults = OptionFaults::default();
            faults.add_useless([
                ("--events-limit", events_limit.is_some(), false, "--events-file"),
                ("--events-keep", events_keep.is_some(), false, "--events-file"),
            ]);
            return faults.into_result().map(|()| None);
        };
        Ok(Some(EventsOptions {
            path: path.clone(),
            limit: events_limit.map_or(EventsOptions::DEFAULT_LIMIT, |Size(bytes)| bytes),
            keep: events_keep.unwrap_or(EventsOptions::DEFAULT_KEEP),
        }))
    }
}

/// The events file, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsOptions {
    /// The file to append to. Older files are next to it: `FILE.1`, `FILE.2` and so on.
    pub path: PathBuf,
    /// The most bytes of a file before it is rotated. A file has at least one line.
    pub limit: u64,
    /// The number of older files kept; 0 for all.
    pub keep: u32,
}

impl EventsOptions {
    /// The default limit in bytes: some 100,000 transitions.
    pub const DEFAULT_LIMIT: u64 = 64 << 20;
    /// The smallest limit that can be configured, in bytes.
    pub const SMALLEST_LIMIT: u64 = 4_096;
    /// The default number of older files kept.
    pub const DEFAULT_KEEP: u32 = 4;
    /// Readable for the group, for log shippers.
    pub(super) const MODE: u32 = 0o640;
    /// The mode of its directory, if that is missing: its group reads the file.
    pub(super) const DIRECTORY_MODE: u32 = 0o750;

    /// Checks that the file can be appended to, or made.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        host.appendable("--events-file", &self.path);
    }

    /// Checks the ranges of the values.
    ///
    /// # Errors
    ///
    /// The first option with an invalid value, by its name on the command line.
    pub fn check(&self) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        let EventsOptions { ref path, limit, .. } = *self;
        if path.file_name().is_none() {
            let fault = format!("`{}` is no name of a file", path.display());
            faults.add("--events-file", fault);
        }
        if limit < Self::SMALLEST_LIMIT {
            let fault = format!("{limit} is less than the least of {} bytes", Self::SMALLEST_LIMIT);
            faults.add("--events-limit", fault);
        }
        faults.into_result()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        events: EventsArgs,
    }

    fn options(words: &[&str]) -> Result<Option<EventsOptions>, Error> {
        let arguments = ["command"].iter().chain(words);
        Command::try_parse_from(arguments).unwrap().events.options()
    }

    #[test]
    fn a_file_has_defaults_and_its_options_do_nothing_without_it() {
        assert_eq!(options(&[]).unwrap(), None);
        let plain = EventsOptions { path: "e".into(), limit: 67_108_864, keep: 4 };
        assert_eq!(options(&["--events-file=e"]).unwrap(), Some(plain));
        let words = ["--events-file=e", "--events-limit=4096", "--events-keep=0"];
        let whole = EventsOptions { path: "e".into(), limit: 4_096, keep: 0 };
        assert_eq!(options(&words).unwrap(), Some(whole));
        for option in &words[1..] {
            let refused = options(&[option]).unwrap_err();
            let (name, _) = option.split_once('=').unwrap();
            assert_eq!(refused.to_string(), format!("{name}: does nothing without --events-file"));
            assert_eq!(refused.exit_status(), 2);
        }
    }
}
