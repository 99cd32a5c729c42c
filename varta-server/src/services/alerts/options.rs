//! The options of alerts: receivers, timing and flap detection.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::limits::MAX_DURATION;
use crate::base::options::{LookUps, OptionFaults, parse_duration};
use crate::base::secret::Secret;
use crate::services::alerts::http_client;
use crate::services::alerts::mail::{Login, MAX_ADDRESSES, MailAddress, MailOptions, Relay};
use crate::services::alerts::templates::{Template, TemplateName};
use crate::services::alerts::url::AlertUrl;
use crate::services::alerts::url_text::UrlText;
use crate::services::alerts::webhook::WebhookSignature;

/// The most Alertmanagers.
const MAX_ALERTMANAGERS: usize = 8;
/// The largest flap limit: failures are remembered for each unhealthy agent.
const MAX_FLAP_LIMIT: usize = 1_000;
const MIN_RESEND: Duration = Duration::from_millis(100);
const MAX_RESEND: Duration = Duration::from_secs(3_600);
const MIN_DURATION: Duration = Duration::from_secs(1);

/// The receivers of alerts and their settings; by default there is no receiver.
#[derive(Debug)]
pub struct AlertOptions {
    /// Alertmanagers; each gets all alerts.
    pub alertmanagers: Vec<AlertUrl>,
    /// The webhook, which gets each notification once.
    pub webhook: Option<AlertUrl>,
    /// The HMAC key of the signature on notifications.
    pub webhook_key: Option<Secret>,
    /// The header that carries the signature.
    pub webhook_signature: WebhookSignature,
    /// What writes the body of a notification; `None` for the JSON of docs/ALERTING.md.
    pub webhook_template: Option<Template>,
    /// How notifications go out as mails; `None` for not at all.
    pub mail: Option<MailOptions>,
    /// Certificates of authorities to trust, in addition to those of the host.
    pub ca_file: Option<PathBuf>,
    /// The interval at which firing alerts are sent again to Alertmanagers.
    pub resend_every: Duration,
    /// How long a notification, or the end of an alert, is retried.
    pub give_up_after: Duration,
    /// Whether a reload may bring receivers, as with a configuration file.
    pub may_get_receivers: bool,
    /// So many failures within the window are flapping; 0 turns flap detection off.
    pub flap_limit: usize,
    /// The window of [`AlertOptions::flap_limit`], and how long a flapping agent must be healthy before its
    /// alert ends.
    pub flap_window: Duration,
}

impl Default for AlertOptions {
    fn default() -> Self {
        AlertOptions {
            alertmanagers: Vec::new(),
            webhook: None,
            webhook_key: None,
            webhook_signature: WebhookSignature::default(),
            webhook_template: None,
            mail: None,
            ca_file: None,
            resend_every: Duration::from_secs(60),
            give_up_after: Duration::from_secs(3_600),
            may_get_receivers: false,
            flap_limit: 3,
            flap_window: Duration::from_secs(600),
        }
    }
}

impl AlertOptions {
    /// Whether there is a receiver.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.alertmanagers.is_empty() || self.webhook.is_some() || self.mail.is_some()
    }

    /// Checks that the hosts of receivers have addresses, and that certificates can be used.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        for url in &self.alertmanagers {
            url.check_host("--alertmanager", host);
        }
        if let Some(url) = &self.webhook {
            url.check_host("--webhook", host);
        }
        if let Some(mail) = &self.mail {
            mail.relay.check_host(host);
        }
        if let Some(path) = &self.ca_file {
            host.result(http_client::check_certificates(path, "--alert-ca-file"));
        }
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &AlertUrl> {
        self.alertmanagers.iter().chain(&self.webhook)
    }

    /// Checks the ranges and combinations that the types leave open.
    ///
    /// # Errors
    ///
    /// The options whose values are out of range or have no effect.
    pub fn check(&self) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        let mut wrong = |option, fault: String| faults.add(option, fault);
        let AlertOptions { alertmanagers, .. } = self;
        if alertmanagers.len() > MAX_ALERTMANAGERS {
            let fault =
                format!("is given {} times, and there may be {MAX_ALERTMANAGERS}", alertmanagers.len());
            wrong("--alertmanager", fault);
        }
        if let Some(index) =
            (1..alertmanagers.len()).find(|index| alertmanagers[..*index].contains(&alertmanagers[*index]))
        {
            wrong("--alertmanager", format!("{} is given twice", alertmanagers[index]));
        }
        if self.webhook_key.is_some() && self.webhook.is_none() {
            wrong("--webhook-key-file", "does nothing without --webhook".to_owned());
        }
        if let Some(mail) = &self.mail
            && !(1..=MAX_ADDRESSES).contains(&mail.to.len())
        {
            let fault = format!("has {} addresses, and there may be 1 to {MAX_ADDRESSES}", mail.to.len());
            wrong("--mail-to", fault);
        }
        let mail_is_encrypted = self.mail.as_ref().is_some_and(|mail| mail.relay.is_encrypted());
        if self.ca_file.is_some() && !mail_is_encrypted && !self.urls().any(AlertUrl::is_https) {
            let fault = "does nothing without an https:// URL for --alertmanager or --webhook, or a --mail-relay on                          another host"
                .to_owned();
            wrong("--alert-ca-file", fault);
        }
        if !(MIN_RESEND..=MAX_RESEND).contains(&self.resend_every) {
            let fault = format!("{:?} is not between 100ms and 1h", self.resend_every);
            wrong("--alert-resend-every", fault);
        }
        if !(MIN_DURATION..=MAX_DURATION).contains(&self.give_up_after) {
            let fault = format!("{:?} is not between 1s and 366 days", self.give_up_after);
            wrong("--alert-give-up-after", fault);
        }
        if self.flap_limit > MAX_FLAP_LIMIT {
            wrong("--flap-limit", format!("{} is more than {MAX_FLAP_LIMIT}", self.flap_limit));
        }
        if !(MIN_DURATION..=MAX_DURATION).contains(&self.flap_window) {
            let fault = format!("{:?} is not between 1s and 366 days", self.flap_window);
            wrong("--flap-window", fault);
        }
        faults.into_result()
    }
}

/// The receivers of alerts. A group of options.
#[derive(Clone, Debug, Default, Args)]
pub struct AlertArgs {
    /// URL of an Alertmanager, such as http://localhost:9093
    ///
    /// May be given more than once; each gets all alerts. The server uses API v2. A user and a password in the
    /// URL are used and never shown.
    #[arg(
        long,
        env = "VARTA_ALERTMANAGER",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub alertmanager: Vec<UrlText>,

    /// URL for notifications, each a POST with JSON
    ///
    /// There is one when an agent is in alarm, is healthy again, or flaps.
    #[arg(long, env = "VARTA_WEBHOOK", value_name = "URL", hide_env_values = true)]
    pub webhook: Option<UrlText>,

    /// File with the secret that signs notifications (HMAC-SHA256); must be readable by its owner only
    #[arg(long, env = "VARTA_WEBHOOK_KEY_FILE", value_name = "FILE", hide_short_help = true)]
    pub webhook_key_file: Option<PathBuf>,

    /// Header that signs notifications; x-hub-signature-256 is that of GitHub, which many receivers check
    /// [default: x-varta-signature]
    #[arg(long, env = "VARTA_WEBHOOK_SIGNATURE", value_name = "HEADER", hide_short_help = true)]
    pub webhook_signature: Option<WebhookSignature>,

    /// Body of notifications: slack, teams, text, or a file with a template in Jinja; without it the JSON of
    /// docs/ALERTING.md
    #[arg(long, env = "VARTA_WEBHOOK_TEMPLATE", value_name = "NAME|FILE", hide_short_help = true)]
    pub webhook_template: Option<TemplateName>,

    /// Relay for notifications as mails, such as smtp://mail.example
    ///
    /// Or smtps://mail.example:465. smtp:// is with STARTTLS, and without it to this host only.
    #[arg(long, env = "VARTA_MAIL_RELAY", value_name = "URL", hide_env_values = true)]
    pub mail_relay: Option<UrlText>,

    /// Sender of mails
    #[arg(long, env = "VARTA_MAIL_FROM", value_name = "ADDRESS")]
    pub mail_from: Option<String>,

    /// Receiver of mails
    ///
    /// May be given more than once.
    #[arg(long, env = "VARTA_MAIL_TO", value_name = "ADDRESS", value_delimiter = ',')]
    pub mail_to: Vec<String>,

    /// File with USER:PASSWORD for the mail relay; must be readable by its owner only
    #[arg(long, env = "VARTA_MAIL_CREDENTIALS_FILE", value_name = "FILE", hide_short_help = true)]
    pub mail_credentials_file: Option<PathBuf>,

    /// Text of mails: text, or a file with a template in Jinja [default: text]
    #[arg(long, env = "VARTA_MAIL_TEMPLATE", value_name = "NAME|FILE", hide_short_help = true)]
    pub mail_template: Option<TemplateName>,

    /// File with certificates, in PEM, of authorities to trust in addition to those of this host
    #[arg(long, env = "VARTA_ALERT_CA_FILE", value_name = "FILE", hide_short_help = true)]
    pub alert_ca_file: Option<PathBuf>,

    /// Interval at which Alertmanagers get the alerts that still fire; an alert that is not sent again ends
    /// after three intervals [default: 1m]
    #[arg(long, env = "VARTA_ALERT_RESEND_EVERY", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub alert_resend_every: Option<Duration>,

    /// How long the server retries a notification, or the end of an alert [default: 1h]
    #[arg(long, env = "VARTA_ALERT_GIVE_UP_AFTER", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub alert_give_up_after: Option<Duration>,

    /// Number of failures within --flap-window that make an agent flap, which is notified once; 0 for never
    /// [default: 3]
    #[arg(long, env = "VARTA_FLAP_LIMIT", value_name = "N", hide_short_help = true)]
    pub flap_limit: Option<usize>,

    /// Time within which failures count together, and for which a flapping agent must be healthy until its
    /// alert ends [default: 10m]
    #[arg(long, env = "VARTA_FLAP_WINDOW", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub flap_window: Option<Duration>,
}

impl AlertArgs {
    /// Converts the options. `has_file` means that a file may bring others while the server runs.
    ///
    /// # Errors
    ///
    /// Invalid URLs, secrets that cannot be read, and options without effect; and what [`AlertOptions::check`] finds
    /// besides.
    pub fn options(&self, has_file: bool, look_ups: LookUps) -> Result<AlertOptions, Error> {
        let (to_alertmanagers, to_webhook) = (!self.alertmanager.is_empty(), self.webhook.is_some());
        let by_mail = self.mail_relay.is_some();
        let is_any = to_alertmanagers || to_webhook || by_mail;
        let (key, any) = ("--webhook-key-file", "--alertmanager, --webhook or --mail-relay");
        let mut faults = OptionFaults::default();
        faults.add_useless([
            ("--alert-resend-every", self.alert_resend_every.is_some(), to_alertmanagers, "--alertmanager"),
            (key, self.webhook_key_file.is_some(), to_webhook, "--webhook"),
            ("--webhook-signature", self.webhook_signature.is_some(), self.webhook_key_file.is_some(), key),
            ("--webhook-template", self.webhook_template.is_some(), to_webhook, "--webhook"),
            ("--mail-from", self.mail_from.is_some(), by_mail, "--mail-relay"),
            ("--mail-to", !self.mail_to.is_empty(), by_mail, "--mail-relay"),
            ("--mail-credentials-file", self.mail_credentials_file.is_some(), by_mail, "--mail-relay"),
            ("--mail-template", self.mail_template.is_some(), by_mail, "--mail-relay"),
            ("--alert-give-up-after", self.alert_give_up_after.is_some(), is_any, any),
            ("--flap-limit", self.flap_limit.is_some(), is_any, any),
            ("--flap-window", self.flap_window.is_some(), is_any, any),
        ]);
        let wrong = |option| move |fault| Error::Option { option, fault };
        let alertmanagers = self.alertmanager.iter().map(|text| AlertUrl::of_alertmanager(text.as_str()));
        let webhook = self.webhook.as_ref().map(|text| AlertUrl::of_webhook(text.as_str()));
        let key = self
            .webhook_key_file
            .as_deref()
            .map(|path| look_ups.find(|| Secret::from_file(path), Secret::stand_in));
        let template = self.webhook_template.as_ref();
        let template = template.map(|name| look_ups.find(|| Template::open(name), Template::stand_in));
        let mail = self.mail_relay.as_ref().map(|relay| self.mail_options(relay.as_str(), look_ups));
        let default = AlertOptions::default();
        let mut urls = faults.values(alertmanagers.map(|url| url.map_err(wrong("--alertmanager"))));
        if urls.len() < self.alertmanager.len() {
            urls.push(AlertUrl::stand_in());
        }
        let mail = mail.map(|mail| faults.value(mail));
        // Whether a relay needs certificates cannot be said of one that is not known.
        let is_mail_known = mail.as_ref().is_none_or(Option::is_some);
        let options = AlertOptions {
            alertmanagers: urls,
            webhook: webhook.map(|url| faults.value_or(url.map_err(wrong("--webhook")), AlertUrl::stand_in)),
            webhook_key: key.and_then(|key| faults.value(key)),
            webhook_signature: self.webhook_signature.unwrap_or_default(),
            webhook_template: template.and_then(|template| faults.value(template)),
            mail: mail.flatten(),
            ca_file: self.alert_ca_file.clone().filter(|_| is_mail_known),
            resend_every: self.alert_resend_every.unwrap_or(default.resend_every),
            give_up_after: self.alert_give_up_after.unwrap_or(default.give_up_after),
            may_get_receivers: has_file,
            flap_limit: self.flap_limit.unwrap_or(default.flap_limit),
            flap_window: self.flap_window.unwrap_or(default.flap_window),
        };
        faults.finish(options, AlertOptions::check)
    }

    fn mail_options(&self, relay: &str, look_ups: LookUps) -> Result<MailOptions, Error> {
        let mut faults = OptionFaults::default();
        let wrong = |option: &'static str| move |fault: String| Error::Option { option, fault };
        let needed = |option: &'static str| {
            let fault = "is needed, so that --mail-relay has something to do".to_owned();
            Error::Option { option, fault }
        };
        let from = match self.mail_from.as_deref() {
            Some(from) => from.parse::<MailAddress>().map_err(wrong("--mail-from")),
            None => Err(needed("--mail-from")),
        };
        let (relay, from) =
            (faults.value(relay.parse::<Relay>().map_err(wrong("--mail-relay"))), faults.value(from));
        if self.mail_to.is_empty() {
            faults.push(needed("--mail-to"));
        }
        let to = self.mail_to.iter().map(|to| to.parse::<MailAddress>().map_err(wrong("--mail-to")));
        let to = faults.values(to);
        let login = self
            .mail_credentials_file
            .as_deref()
            .map(|path| look_ups.find(|| Login::from_file(path), Login::stand_in));
        let login = login.and_then(|login| faults.value(login));
        let template = self.mail_template.clone().unwrap_or(TemplateName::BuiltIn("text"));
        let template = faults.value(look_ups.find(|| Template::open(&template), Template::stand_in));
        let all = relay.zip(from).zip(template);
        let options = all.map(|((relay, from), template)| MailOptions { relay, from, to, login, template });
        faults.into_result()?;
        options.ok_or_else(|| needed("--mail-from"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut AlertOptions)) -> String {
        let mut options = AlertOptions::default();
        options.check().unwrap();
        options.alertmanagers.push(AlertUrl::of_alertmanager("http://localhost:9093").unwrap());
        options.check().unwrap();
        change(&mut options);
        let error = options.check().unwrap_err();
        assert_eq!(error.exit_status(), 2, "{error}");
        error.to_string()
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        let twice = refused(|options| options.alertmanagers.push(options.alertmanagers[0].clone()));
        assert!(twice.starts_with("--alertmanager") && twice.contains("given twice"), "{twice}");
        let many =
            |number| AlertUrl::of_alertmanager(&format!("http://localhost:{}", 9_094 + number)).unwrap();
        assert!(refused(|options| options.alertmanagers.extend((0..8).map(many))).contains("9 times"));
        assert!(refused(|options| options.ca_file = Some("ca.pem".into())).starts_with("--alert-ca-file"));
        assert!(refused(|options| options.resend_every = Duration::ZERO).starts_with("--alert-resend-every"));
        assert!(
            refused(|options| options.give_up_after = Duration::ZERO).starts_with("--alert-give-up-after")
        );
        assert!(refused(|options| options.flap_limit = 1_001).starts_with("--flap-limit"));
        assert!(refused(|options| options.flap_window = Duration::MAX).starts_with("--flap-window"));
    }

    fn url(text: &str) -> Option<UrlText> {
        Some(text.parse().unwrap())
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
                AlertArgs { alert_resend_every: window, webhook: hook.clone(), ..AlertArgs::default() },
                "--alert-resend-every",
            ),
            (
                AlertArgs {
                    webhook_signature: Some(WebhookSignature::Hub),
                    webhook: hook,
                    ..AlertArgs::default()
                },
                "--webhook-signature",
            ),
            (
                AlertArgs { webhook_template: Some(TemplateName::BuiltIn("slack")), ..AlertArgs::default() },
                "--webhook-template",
            ),
            (AlertArgs { mail_from: Some("a@b.example".to_owned()), ..AlertArgs::default() }, "--mail-from"),
            (AlertArgs { mail_to: vec!["a@b.example".to_owned()], ..AlertArgs::default() }, "--mail-to"),
            (
                AlertArgs { mail_credentials_file: Some("login".into()), ..AlertArgs::default() },
                "--mail-credentials-file",
            ),
            (
                AlertArgs { mail_template: Some(TemplateName::BuiltIn("text")), ..AlertArgs::default() },
                "--mail-template",
            ),
        ];
        for (args, option) in cases {
            let said = args.options(false, LookUps::Done).unwrap_err().to_string();
            assert!(said.starts_with(option) && said.contains("does nothing"), "{said}");
        }
        assert!(!AlertArgs::default().options(false, LookUps::Done).unwrap().is_on());
    }

    #[test]
    fn mails_need_a_sender_and_a_receiver_that_are_addresses() {
        let args = |from: &str, to: &[&str]| AlertArgs {
            mail_relay: Some("smtp://localhost".parse().unwrap()),
            mail_from: Some(from.to_owned()).filter(|from| !from.is_empty()),
            mail_to: to.iter().map(|to| (*to).to_owned()).collect(),
            ..AlertArgs::default()
        };
        let options =
            args("Varta <varta@example.test>", &["a@example.test"]).options(false, LookUps::Done).unwrap();
        options.check().unwrap();
        assert!(options.is_on());
        for (wrong, option) in [
            (args("", &["a@example.test"]), "--mail-from"),
            (args("varta", &["a@example.test"]), "--mail-from"),
            (args("varta@example.test", &[]), "--mail-to"),
            (args("varta@example.test", &["a b"]), "--mail-to"),
        ] {
            let said = wrong.options(false, LookUps::Done).unwrap_err().to_string();
            assert!(said.starts_with(option), "{said}");
        }
        let many = args("varta@example.test", &["a@example.test"; 17]).options(false, LookUps::Done).unwrap();
        assert!(many.check().unwrap_err().to_string().starts_with("--mail-to: has 17 addresses"));
    }

    #[test]
    fn a_wrong_url_is_named_by_its_option_and_not_shown() {
        let args = AlertArgs { webhook: url("ftp://user:secret@localhost/"), ..AlertArgs::default() };
        let said = args.options(false, LookUps::Done).unwrap_err().to_string();
        assert!(said.starts_with("--webhook") && !said.contains("secret"), "{said}");
        assert!(!format!("{args:?}").contains("secret"));
    }
}
