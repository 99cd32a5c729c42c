//! The receivers of alerts as the options name them, with what sends to them: opened, and not used yet.

use std::time::Duration;

use reqwest::Client;
use ring::hmac;

use crate::base::error::Error;
use crate::services::alerts::http_client;
use crate::services::alerts::lifecycle::FlapDetection;
use crate::services::alerts::mail::Mail;
use crate::services::alerts::options::AlertOptions;
use crate::services::alerts::url::AlertUrl;
use crate::services::alerts::webhook::Webhook;

/// All receivers.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) alertmanagers: Vec<AlertUrl>,
    pub(super) client: Client,
    /// Whether a file has certificates of authorities, which may be others each time that it is read.
    pub(super) has_ca_file: bool,
    pub(super) webhook: Option<Webhook>,
    pub(super) mail: Option<Mail>,
    /// The interval at which Alertmanagers get what fires.
    pub(super) resend_every: Duration,
    pub(super) give_up_after: Duration,
    pub(super) damping: FlapDetection,
}

impl Targets {
    /// Builds the clients. `host` is the name of this host.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used.
    pub(super) fn open(options: AlertOptions, host: &str) -> Result<Self, Error> {
        let needs_tls = options.urls().any(AlertUrl::is_https);
        let ca_file = options.ca_file.as_deref();
        let client = http_client::client(ca_file, "--alert-ca-file", needs_tls)?;
        let mail = options.mail.map(|mail| Mail::open(mail, ca_file, host)).transpose()?;
        let (signature, template) = (options.webhook_signature, options.webhook_template);
        let key = options.webhook_key.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        let webhook = options.webhook.map(|url| {
            let client = client.clone();
            Webhook { url, key, signature, template, client }
        });
        Ok(Targets {
            alertmanagers: options.alertmanagers,
            client,
            has_ca_file: ca_file.is_some(),
            webhook,
            mail,
            resend_every: options.resend_every,
            give_up_after: options.give_up_after,
            damping: FlapDetection { limit: options.flap_limit, window: options.flap_window },
        })
    }
}
