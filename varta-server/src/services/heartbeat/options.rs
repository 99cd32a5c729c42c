//! Where heartbeats go, and how often.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::base::SocketOptions;
use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::options::host_port::{HostPort, parse_host_port};
use crate::base::options::{LookUps, OptionFaults, parse_duration};
use crate::services::alerts::{AlertUrl, UrlText, http_client};
use crate::services::heartbeat::device_target::MIN_TIMEOUT;

const DEFAULT_EVERY: Duration = Duration::from_secs(60);
const MIN_EVERY: Duration = Duration::from_secs(1);
const MAX_EVERY: Duration = Duration::from_secs(86_400);
const DEFAULT_BEAT_EVERY: Duration = Duration::from_secs(1);
const MIN_BEAT_EVERY: Duration = Duration::from_millis(100);
const MAX_BEAT_EVERY: Duration = Duration::from_secs(600);
const MAX_HW_TIMEOUT: Duration = Duration::from_secs(3_600);

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

    /// Another varta-server that watches this one, unix:PATH or udp:ADDR
    ///
    /// It gets beats in plaintext as from any agent, under the name varta-server@HOST, only after completed turns
    /// of the tracker, and is asked to bear a silence of five intervals.
    #[arg(long, env = "VARTA_BEAT_TO", value_name = "SERVER", value_parser = parse_beat_to)]
    pub beat_to: Option<BeatTo>,

    /// Interval of beats to --beat-to [default: 1s]
    #[arg(long, env = "VARTA_BEAT_EVERY", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub beat_every: Option<Duration>,

    /// Device of a hardware watchdog, such as /dev/watchdog0
    ///
    /// It resets the host when the tracker completes no turn for the time of the device. An orderly stop disarms
    /// it, and an end because of an error does not.
    #[arg(long, env = "VARTA_HW_WATCHDOG", value_name = "DEVICE", hide_short_help = true)]
    pub hw_watchdog: Option<PathBuf>,

    /// Time that is set on the device of --hw-watchdog, in whole seconds; without it the device keeps its own
    #[arg(long, env = "VARTA_HW_WATCHDOG_TIMEOUT", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub hw_watchdog_timeout: Option<Duration>,
}

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BeatTo {
    /// The path of its Unix socket.
    Unix(PathBuf),
    /// The address on which it listens for plaintext UDP.
    Udp(HostPort),
}

fn parse_beat_to(text: &str) -> Result<BeatTo, String> {
    match text.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => Ok(BeatTo::Unix(path.into())),
        Some(("udp", address)) => parse_host_port(address).map(BeatTo::Udp),
        _ => Err("is neither unix:PATH nor udp:ADDR, as in udp:watcher.example:9844".to_owned()),
    }
}

impl HeartbeatArgs {
    /// Converts the options. `sockets` are those of this server.
    ///
    /// # Errors
    ///
    /// An invalid URL, and options without effect; and what [`HeartbeatOptions::check`] finds besides.
    pub fn options(self, sockets: &[SocketOptions]) -> Result<HeartbeatOptions, Error> {
        let mut faults = OptionFaults::default();
        let to_url = self.heartbeat_url.is_some();
        faults.add_useless([
            ("--heartbeat-every", self.heartbeat_every.is_some(), to_url, "--heartbeat-url"),
            ("--heartbeat-ca-file", self.heartbeat_ca_file.is_some(), to_url, "--heartbeat-url"),
            ("--beat-every", self.beat_every.is_some(), self.beat_to.is_some(), "--beat-to"),
            (
                "--hw-watchdog-timeout",
                self.hw_watchdog_timeout.is_some(),
                self.hw_watchdog.is_some(),
                "--hw-watchdog",
            ),
        ]);
        let url = self.heartbeat_url.map(|text| {
            AlertUrl::of_webhook(text.as_str())
                .map_err(|fault| Error::Option { option: "--heartbeat-url", fault })
        });
        let url = url.map(|url| faults.value_or(url, AlertUrl::stand_in));
        let (every, ca_file) = (self.heartbeat_every.unwrap_or(DEFAULT_EVERY), self.heartbeat_ca_file);
        let beat_every = self.beat_every.unwrap_or(DEFAULT_BEAT_EVERY);
        let timeout = self.hw_watchdog_timeout;
        let options = HeartbeatOptions {
            url: url.map(|url| UrlOptions { url, every, ca_file }),
            peer: self.beat_to.map(|to| PeerOptions { to, every: beat_every }),
            device: self.hw_watchdog.map(|path| DeviceOptions { path, timeout }),
        };
        faults.finish(options, |options| options.check(sockets))
    }
}

/// Who is told that this server works; by default nobody.
#[derive(Debug, Default)]
pub struct HeartbeatOptions {
    /// The URL that gets heartbeats.
    pub url: Option<UrlOptions>,
    /// The server that gets beats.
    pub peer: Option<PeerOptions>,
    /// The watchdog that is fed.
    pub device: Option<DeviceOptions>,
}

/// Beats to another server.
#[derive(Debug)]
pub struct PeerOptions {
    /// Where they go.
    pub to: BeatTo,
    /// Their interval.
    pub every: Duration,
}

/// A hardware watchdog.
#[derive(Debug)]
pub struct DeviceOptions {
    /// Its device.
    pub path: PathBuf,
    /// The time that is set on it, in whole seconds; `None` for its own.
    pub timeout: Option<Duration>,
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
    /// Checks that hosts have addresses, that certificates can be used, and that the device is there.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        if let Some(UrlOptions { url, ca_file, .. }) = &self.url {
            url.check_host("--heartbeat-url", host);
            if let Some(path) = ca_file {
                host.result(http_client::check_certificates(path, "--heartbeat-ca-file"));
            }
        }
        if let Some(PeerOptions { to: BeatTo::Udp(address), .. }) = &self.peer {
            host.result(address.resolve("--beat-to", LookUps::Done));
        }
        if let Some(device) = &self.device {
            host.device("--hw-watchdog", &device.path);
        }
    }

    /// Checks the ranges and combinations that the types leave open. `sockets` are those of this server.
    ///
    /// # Errors
    ///
    /// The first option whose value is out of range or has no effect.
    pub fn check(&self, sockets: &[SocketOptions]) -> Result<(), Error> {
        let HeartbeatOptions { url, peer, device } = self;
        let mut faults = OptionFaults::default();
        faults.value(url.as_ref().map_or(Ok(()), UrlOptions::check));
        faults.value(peer.as_ref().map_or(Ok(()), |peer| peer.check(sockets)));
        faults.value(device.as_ref().map_or(Ok(()), DeviceOptions::check));
        faults.into_result()
    }
}

impl UrlOptions {
    fn check(&self) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        if !(MIN_EVERY..=MAX_EVERY).contains(&self.every) {
            faults.add("--heartbeat-every", format!("{:?} is not between 1s and 1 day", self.every));
        }
        if self.ca_file.is_some() && !self.url.is_https() {
            faults.add("--heartbeat-ca-file", "does nothing without an https:// URL for --heartbeat-url");
        }
        faults.into_result()
    }
}

impl PeerOptions {
    fn check(&self, sockets: &[SocketOptions]) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        if let BeatTo::Unix(path) = &self.to
            && sockets.iter().any(|socket| socket.path == *path)
        {
            let fault = format!("unix:{} is a socket of this server itself", path.display());
            faults.add("--beat-to", fault);
        }
        if !(MIN_BEAT_EVERY..=MAX_BEAT_EVERY).contains(&self.every) {
            faults.add("--beat-every", format!("{:?} is not between 100ms and 10m", self.every));
        }
        faults.into_result()
    }
}

impl DeviceOptions {
    fn check(&self) -> Result<(), Error> {
        let Some(timeout) = self.timeout else { return Ok(()) };
        if (MIN_TIMEOUT..=MAX_HW_TIMEOUT).contains(&timeout) && timeout.subsec_nanos() == 0 {
            return Ok(());
        }
        let fault = format!("{timeout:?} is no number of whole seconds between 10s and 1h");
        Err(Error::Option { option: "--hw-watchdog-timeout", fault })
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
        let own = SocketOptions { path: "/own.sock".into(), is_default: false, mode: 0o600, group: None };
        let sockets = [own];
        let options = command.heartbeat.options(&sockets).map_err(|error| error.to_string())?;
        options.check(&sockets).map_err(|error| error.to_string()).map(|()| options)
    }

    #[test]
    fn nobody_is_told_by_default_and_a_url_every_minute() {
        let nobody = options(&[]).unwrap();
        assert!(nobody.url.is_none() && nobody.peer.is_none() && nobody.device.is_none());
        let url = options(&["--heartbeat-url=https://hc.example/secret"]).unwrap().url.unwrap();
        assert_eq!(url.every, Duration::from_secs(60));
        assert_eq!(url.url.to_string(), "https://hc.example/…");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_option_and_the_url_is_not_repeated() {
        let http = "--heartbeat-url=http://localhost/secret";
        let (peer, device) = ("--beat-to=unix:/other.sock", "--hw-watchdog=/dev/watchdog0");
        options(&[peer, "--beat-every=10m"]).unwrap();
        options(&[device, "--hw-watchdog-timeout=10s"]).unwrap();
        let table: [(&[&str], &str); 12] = [
            (&["--beat-every=1s"], "--beat-every: does nothing without --beat-to"),
            (&["--beat-to=unix:/own.sock"], "--beat-to: unix:/own.sock is a socket of this server itself"),
            (&[peer, "--beat-every=50ms"], "--beat-every: 50ms is not between 100ms and 10m"),
            (&["--hw-watchdog-timeout=10s"], "--hw-watchdog-timeout: does nothing without --hw-watchdog"),
            (
                &[device, "--hw-watchdog-timeout=9s"],
                "--hw-watchdog-timeout: 9s is no number of whole seconds",
            ),
            (
                &[device, "--hw-watchdog-timeout=10500ms"],
                "--hw-watchdog-timeout: 10.5s is no number of whole",
            ),
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

    #[test]
    fn another_server_is_a_unix_socket_or_an_address() {
        assert_eq!(parse_beat_to("unix:/run/b.sock"), Ok(BeatTo::Unix("/run/b.sock".into())));
        assert_eq!(parse_beat_to("udp:[::1]:9844"), parse_host_port("[::1]:9844").map(BeatTo::Udp));
        for text in ["", "unix:", "/run/b.sock", "udp:", "udp:localhost", "tcp:localhost:1"] {
            assert!(parse_beat_to(text).is_err(), "{text}");
        }
    }
}
