//! The options that say who is told of agents in alarm.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::alerts::{AlertOptions, AlertUrl};
use crate::error::Error;
use crate::secret::Secret;

/// Who is told of agents in alarm. A group of options.
#[derive(Clone, Debug, Default, Args)]
pub struct AlertArgs {
    /// URL of an Alertmanager, such as http://localhost:9093; may be given more than once, and each is told everything
    ///
    /// Alerts go to its API v2. A user and a password in the URL are used and never shown.
    #[arg(
        long,
        env = "VARTA_ALERTMANAGER",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub alertmanager: Vec<UrlText>,

    /// URL to which each notice is sent, as JSON in a POST: an agent is in alarm, or well again, or flaps
    #[arg(long, env = "VARTA_WEBHOOK", value_name = "URL", hide_env_values = true)]
    pub webhook: Option<UrlText>,

    /// File with the secret by which notices are signed (HMAC-SHA256); only its owner may be able to read it
    #[arg(long, env = "VARTA_WEBHOOK_KEY_FILE", value_name = "FILE")]
    pub webhook_key_file: Option<PathBuf>,

    /// File with certificates, in PEM, of authorities to trust beside those of this host
    #[arg(long, env = "VARTA_ALERT_CA_FILE", value_name = "FILE")]
    pub alert_ca_file: Option<PathBuf>,

    /// How often Alertmanagers are told what lasts; without being told three times an alert ends by itself [default: 1m]
    #[arg(long, env = "VARTA_ALERT_RESEND_EVERY", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub alert_resend_every: Option<Duration>,

    /// How long it is tried to tell a notice, or the end of an alert [default: 1h]
    #[arg(long, env = "VARTA_ALERT_GIVE_UP_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub alert_give_up_after: Option<Duration>,

    /// How many falls within --flap-window make an agent one that flaps, which is told once; 0 for never [default: 3]
    #[arg(long, env = "VARTA_FLAP_LIMIT", value_name = "N")]
    pub flap_limit: Option<usize>,

    /// Within which time falls count together, and how long an agent that flaps must be well to be told so [default: 10m]
    #[arg(long, env = "VARTA_FLAP_WINDOW", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub flap_window: Option<Duration>,
}

/// The text of a URL, which may have secrets in it.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlText(String);

impl FromStr for UrlText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(UrlText(text.to_owned()))
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlText(..)")
    }
}

impl AlertArgs {
    /// What these options say.
    ///
    /// # Errors
    ///
    /// A URL that is none, a secret that cannot be read, or an option that would do nothing. Whether values make sense is
    /// for [`Config::check`](crate::config::Config::check).
    pub(super) fn options(&self) -> Result<AlertOptions, Error> {
        let (to_alertmanagers, to_webhook) = (!self.alertmanager.is_empty(), self.webhook.is_some());
        let is_any = to_alertmanagers || to_webhook;
        let useless = [
            ("--alert-resend-every", self.alert_resend_every.is_some(), to_alertmanagers, "--alertmanager"),
            ("--webhook-key-file", self.webhook_key_file.is_some(), to_webhook, "--webhook"),
            (
                "--alert-give-up-after",
                self.alert_give_up_after.is_some(),
                is_any,
                "--alertmanager or --webhook",
            ),
            ("--flap-limit", self.flap_limit.is_some(), is_any, "--alertmanager or --webhook"),
            ("--flap-window", self.flap_window.is_some(), is_any, "--alertmanager or --webhook"),
        ];
        for (option, is_given, does_something, needed) in useless {
            if is_given && !does_something {
                return Err(Error::Option { option, fault: format!("does nothing without {needed}") });
            }
        }
        let wrong = |option| move |fault| Error::Option { option, fault };
        let alertmanagers = self.alertmanager.iter().map(|text| AlertUrl::of_alertmanager(&text.0));
        let webhook = self.webhook.as_ref().map(|text| AlertUrl::of_webhook(&text.0));
        let default = AlertOptions::default();
        Ok(AlertOptions {
            alertmanagers: alertmanagers.collect::<Result<_, _>>().map_err(wrong("--alertmanager"))?,
            webhook: webhook.transpose().map_err(wrong("--webhook"))?,
            webhook_key: self.webhook_key_file.as_deref().map(Secret::from_file).transpose()?,
            ca_file: self.alert_ca_file.clone(),
            resend_every: self.alert_resend_every.unwrap_or(default.resend_every),
            give_up_after: self.alert_give_up_after.unwrap_or(default.give_up_after),
            flap_limit: self.flap_limit.unwrap_or(default.flap_limit),
            flap_window: self.flap_window.unwrap_or(default.flap_window),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Option<UrlText> {
        Some(UrlText(text.to_owned()))
    }

    #[test]
    fn options_that_would_do_nothing_are_refused_by_name() {
        let window = Some(Duration::from_secs(60));
        let hook = url("http://localhost/");
        let cases = [
            (AlertArgs { flap_window: window, ..AlertArgs::default() }, "--flap-window"),
            (AlertArgs { flap_limit: Some(2), ..AlertArgs::default() }, "--flap-limit"),
            (AlertArgs { alert_give_up_after: window, ..AlertArgs::default() }, "--alert-give-up-after"),
            (
                AlertArgs { webhook_key_file: Some("key".into()), ..AlertArgs::default() },
                "--webhook-key-file",
            ),
            (
                AlertArgs { alert_resend_every: window, webhook: hook, ..AlertArgs::default() },
                "--alert-resend-every",
            ),
        ];
        for (args, option) in cases {
            let said = args.options().unwrap_err().to_string();
            assert!(said.starts_with(option) && said.contains("does nothing"), "{said}");
        }
        assert!(!AlertArgs::default().options().unwrap().is_on());
    }

    #[test]
    fn a_wrong_url_is_named_by_its_option_and_not_shown() {
        let args = AlertArgs { webhook: url("ftp://user:secret@localhost/"), ..AlertArgs::default() };
        let said = args.options().unwrap_err().to_string();
        assert!(said.starts_with("--webhook") && !said.contains("secret"), "{said}");
        assert!(!format!("{args:?}").contains("secret"));
    }
}
