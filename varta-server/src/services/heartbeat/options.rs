//! Where heartbeats go, and how often.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::base::error::Error;
use crate::base::options::parse_duration;
use crate::services::alerts::{AlertUrl, UrlText};

const DEFAULT_EVERY: Duration = Duration::from_secs(60);
const MIN_EVERY: Duration = Duration::from_secs(1);
const MAX_EVERY: Duration = Duration::from_secs(86_400);

/// Who is told that this server works. A group of options.
#[derive(Clone, Debug, Default, Args)]
pub struct HeartbeatArgs {
    /// URL for heartbeats of this server, as healthchecks.io takes them
    ///
    /// A POST each, sent only after a completed turn of the tracker; URL/start when the server starts, and
    /// URL/fail when it ends because of an error. A user, a password, the path and the query are used and
    /// never shown.
    #[arg(long, env = "VARTA_HEARTBEAT_URL", value_name = "URL", hide_env_values = true)]
    pub heartbeat_url: Option<UrlText>,

    /// Interval of heartbeats to --heartbeat-url [default: 1m]
    #[arg(long, env = "VARTA_HEARTBEAT_EVERY", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub heartbeat_every: Option<Duration>,

    /// File with certificates, in PEM, of authorities to trust for --heartbeat-url in addition to those of this
    /// host
    #[arg(long, env = "VARTA_HEARTBEAT_CA_FILE", value_name = "FILE", hide_short_help = true)]
    pub heartbeat_ca_file: Option<PathBuf>,
}

impl HeartbeatArgs {
    /// Converts the options.
    ///
    /// # Errors
    ///
    /// An invalid URL, or an option without effect. Ranges are checked by
    /// [`Config::check`](crate::config::Config::check).
    pub fn options(self) -> Result<HeartbeatOptions, Error> {
        let HeartbeatArgs { heartbeat_url, heartbeat_every, heartbeat_ca_file } = self;
        let useless = [
            ("--heartbeat-every", heartbeat_every.is_some()),
            ("--heartbeat-ca-file", heartbeat_ca_file.is_some()),
        ];
        let Some(text) = heartbeat_url else {
            return match useless.into_iter().find(|(_, is_given)| *is_given) {
                Some((option, _)) => {
                    Err(Error::Option { option, fault: "does nothing without --heartbeat-url".to_owned() })
                }
                None => Ok(HeartbeatOptions::default()),
            };
        };
        let url = AlertUrl::of_webhook(text.as_str())
            .map_err(|fault| Error::Option { option: "--heartbeat-url", fault })?;
        let every = heartbeat_every.unwrap_or(DEFAULT_EVERY);
        Ok(HeartbeatOptions { url: Some(UrlOptions { url, every, ca_file: heartbeat_ca_file }) })
    }
}

/// Who is told that this server works; by default nobody.
#[derive(Debug, Default)]
pub struct HeartbeatOptions {
    /// The URL that gets heartbeats.
    pub url: Option<UrlOptions>,
}

/// Heartbeats to a URL.
#[derive(Debug)]
pub struct UrlOptions {
    /// Where they go; `/start` and `/fail` are appended to its path.
    pub url: AlertUrl,
    /// Their interval.
    pub every: Duration,
    /// Certificates of authorities to trust, in addition to those of the host.
    pub ca_file: Option<PathBuf>,
}

impl HeartbeatOptions {
    /// Checks the ranges and combinations that the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value is out of range or has no effect.
    pub fn check(&self) -> Result<(), Error> {
        let HeartbeatOptions { url } = self;
        url.as_ref().map_or(Ok(()), UrlOptions::check)
    }
}

impl UrlOptions {
    fn check(&self) -> Result<(), Error> {
        if !(MIN_EVERY..=MAX_EVERY).contains(&self.every) {
            let fault = format!("{:?} is not between 1s and 1 day", self.every);
            return Err(Error::Option { option: "--heartbeat-every", fault });
        }
        if self.ca_file.is_some() && !self.url.is_https() {
            let fault = "does nothing without an https:// URL for --heartbeat-url".to_owned();
            return Err(Error::Option { option: "--heartbeat-ca-file", fault });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        heartbeat: HeartbeatArgs,
    }

    fn options(words: &[&str]) -> Result<HeartbeatOptions, String> {
        let command = Command::try_parse_from(["command"].iter().chain(words)).unwrap();
        let options = command.heartbeat.options().map_err(|error| error.to_string())?;
        options.check().map_err(|error| error.to_string()).map(|()| options)
    }

    #[test]
    fn nobody_is_told_by_default_and_a_url_every_minute() {
        assert!(options(&[]).unwrap().url.is_none());
        let url = options(&["--heartbeat-url=https://hc.example/secret"]).unwrap().url.unwrap();
        assert_eq!(url.every, Duration::from_secs(60));
        assert_eq!(url.url.to_string(), "https://hc.example/…");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_option_and_the_url_is_not_repeated() {
        let http = "--heartbeat-url=http://localhost/secret";
        let table: [(&[&str], &str); 6] = [
            (&["--heartbeat-every=1m"], "--heartbeat-every: does nothing without --heartbeat-url"),
            (&["--heartbeat-ca-file=x"], "--heartbeat-ca-file: does nothing without --heartbeat-url"),
            (&[http, "--heartbeat-ca-file=x"], "--heartbeat-ca-file: does nothing without an https:// URL"),
            (&[http, "--heartbeat-every=10ms"], "--heartbeat-every: 10ms is not between 1s and 1 day"),
            (&[http, "--heartbeat-every=2d"], "--heartbeat-every: 172800s is not between 1s and 1 day"),
            (&["--heartbeat-url=secret"], "--heartbeat-url: is no URL"),
        ];
        for (words, said) in table {
            let refused = options(words).unwrap_err();
            assert!(refused.starts_with(said), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
