//! Sends notifications to the webhook: one request each, signed and by a template if that is asked for.

use std::borrow::Cow;
use std::fmt;
use std::time::UNIX_EPOCH;

use clap::ValueEnum;
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;

use crate::base::clock::wall_now;
use crate::services::alerts::alert::hex;
use crate::services::alerts::http_client::{DeliveryResult, JSON, post};
use crate::services::alerts::notification::Delivery;
use crate::services::alerts::templates::Template;
use crate::services::alerts::url::AlertUrl;

const DELIVERY: HeaderName = HeaderName::from_static("x-varta-delivery");
const OWN_SIGNATURE: HeaderName = HeaderName::from_static("x-varta-signature");
const HUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");

/// The header that signs a notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum WebhookSignature {
    /// `X-Varta-Signature: t=<unix seconds>,v1=<hex>`, over the seconds, a dot and the body.
    #[default]
    #[value(name = "x-varta-signature")]
    Own,
    /// `X-Hub-Signature-256: sha256=<hex>`, over the body, as GitHub signs.
    #[value(name = "x-hub-signature-256")]
    Hub,
}

impl WebhookSignature {
    /// The header of a body that is sent now.
    fn header(self, key: &hmac::Key, unix_seconds: u64, body: &str) -> (HeaderName, String) {
        match self {
            WebhookSignature::Own => {
                let tag = hmac::sign(key, format!("{unix_seconds}.{body}").as_bytes());
                (OWN_SIGNATURE, format!("t={unix_seconds},v1={}", hex(tag.as_ref())))
            }
            WebhookSignature::Hub => {
                let tag = hmac::sign(key, body.as_bytes());
                (HUB_SIGNATURE, format!("sha256={}", hex(tag.as_ref())))
            }
        }
    }
}

/// The webhook as a receiver of notifications.
pub(super) struct Webhook {
    pub(super) url: AlertUrl,
    pub(super) key: Option<hmac::Key>,
    pub(super) signature: WebhookSignature,
    pub(super) template: Option<Template>,
    pub(super) client: Client,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Sends one notification.
    pub(super) async fn send(&self, delivery: &Delivery) -> DeliveryResult {
        let (body, content_type) = match &self.template {
            None => (Cow::Borrowed(delivery.body.as_str()), JSON),
            Some(template) => match written(template, &delivery.body) {
                Ok(text) => (Cow::Owned(text), template.content_type()),
                Err(fault) => return DeliveryResult::Refused(fault),
            },
        };
        let headers = self.headers(delivery, &body);
        post(&self.client, &self.url, content_type, headers, body.into_owned()).await.result
    }

    fn headers(&self, delivery: &Delivery, body: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        put(DELIVERY, &delivery.id);
        if let Some(key) = &self.key {
            let (name, value) = self.signature.header(key, unix_seconds(), body);
            put(name, &value);
        }
        headers
    }
}

fn written(template: &Template, body: &str) -> Result<String, String> {
    let notice = serde_json::from_str(body).map_err(|error| error.to_string())?;
    template.render(&notice)
}

fn unix_seconds() -> u64 {
    wall_now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_calculate() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let (name, value) = WebhookSignature::Own.header(&key, 1_700_000_000, "{}");
        assert_eq!(
            (name.as_str(), &*value),
            (
                "x-varta-signature",
                "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e"
            )
        );
        // The example of GitHub's own documentation.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"It's a Secret to Everybody");
        let (name, value) = WebhookSignature::Hub.header(&key, 0, "Hello, World!");
        assert_eq!(
            (name.as_str(), &*value),
            (
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
            )
        );
    }
}
