//! The options of the file of events.

use std::path::PathBuf;

use clap::Args;

use crate::error::Error;
use crate::events::EventsOptions;

/// Where changes of verdict are written. A group of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// File to which every change of verdict is appended, as a line of JSON
    ///
    /// docs/EVENTS.md has its fields. It may be renamed by logrotate and the like: a new one is begun within a second of the
    /// next change.
    #[arg(long, env = "VARTA_EVENTS_FILE", value_name = "FILE")]
    pub events_file: Option<PathBuf>,

    /// How long the file of events may become before it is renamed to FILE.1, in bytes [default: 67108864]
    #[arg(long, env = "VARTA_EVENTS_LIMIT", value_name = "BYTES")]
    pub events_limit: Option<u64>,

    /// How many renamed files of events are kept; 0 for all [default: 4]
    #[arg(long, env = "VARTA_EVENTS_KEEP", value_name = "N")]
    pub events_keep: Option<u32>,
}

impl EventsArgs {
    /// What these options say; `None` when no file is wanted.
    ///
    /// # Errors
    ///
    /// The first option that would do nothing without a file.
    pub fn options(&self) -> Result<Option<EventsOptions>, Error> {
        let EventsArgs { events_file, events_limit, events_keep } = self;
        let Some(path) = events_file else {
            let options =
                [("--events-limit", events_limit.is_some()), ("--events-keep", events_keep.is_some())];
            return match options.into_iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((option, _)) => {
                    Err(Error::Option { option, fault: "does nothing without --events-file".to_owned() })
                }
            };
        };
        Ok(Some(EventsOptions {
            path: path.clone(),
            limit: events_limit.unwrap_or(EventsOptions::DEFAULT_LIMIT),
            keep: events_keep.unwrap_or(EventsOptions::DEFAULT_KEEP),
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
