//! Sends notifications to the webhook: one request each, in order, until it is accepted, refused or given up.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::backoff::Backoff;
use crate::base::clock::wall_now;
use crate::services::alerts::alert::hex;
use crate::services::alerts::delivery::Report;
use crate::services::alerts::http_client::{DeliveryResult, post};
use crate::services::alerts::metrics::Outcomes;
use crate::services::alerts::notification::Delivery;
use crate::services::alerts::url::AlertUrl;

/// The capacity of the queue of notifications.
pub(super) const QUEUE: usize = 4_096;

const DELIVERY: HeaderName = HeaderName::from_static("x-varta-delivery");
const SIGNATURE: HeaderName = HeaderName::from_static("x-varta-signature");

/// A queued notification, and since when it waits.
pub(super) type Waiting = (Instant, Delivery);

/// The task that sends to the webhook.
pub(super) struct Webhook {
    pub(super) url: AlertUrl,
    pub(super) key: Option<hmac::Key>,
    pub(super) client: Client,
    pub(super) give_up_after: Duration,
    pub(super) queue: mpsc::Receiver<Waiting>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) outcomes: Outcomes,
    pub(super) stop: CancellationToken,
}

impl Webhook {
    /// Runs until it is stopped, then tries each queued notification once.
    pub(super) async fn run(mut self) {
        let mut is_failing = false;
        loop {
            if self.stop.is_cancelled() {
                // A closed queue still yields its content.
                self.queue.close();
            }
            let waiting = tokio::select! {
                biased;
                waiting = self.queue.recv() => waiting,
                () = self.stop.cancelled(), if !self.stop.is_cancelled() => continue,
            };
            let Some((since, delivery)) = waiting else { return };
            self.deliver(since, &delivery, &mut is_failing).await;
        }
    }

    async fn deliver(&self, since: Instant, delivery: &Delivery, is_failing: &mut bool) {
        let (url, id, kind) = (&self.url, &delivery.id, delivery.kind.as_str());
        let mut backoff = Backoff::default();
        loop {
            let headers = self.headers(delivery);
            match post(&self.client, url, headers, delivery.body.clone()).await.result {
                DeliveryResult::Taken => {
                    self.outcomes.sent.increment(1);
                    if std::mem::take(is_failing) {
                        tracing::info!(target: "varta::alerts", "{url}: takes notices again");
                    }
                    break;
                }
                DeliveryResult::Refused(reason) => {
                    self.outcomes.refused.increment(1);
                    tracing::error!(
                        target: "varta::alerts",
                        %id,
                        kind,
                        "{url}: refused a notice ({kind}), which is not sent again: {reason}"
                    );
                    break;
                }
                DeliveryResult::Failed(reason, asked) => {
                    if !std::mem::replace(is_failing, true) {
                        tracing::warn!(
                            target: "varta::alerts",
                            %id,
                            kind,
                            "{url}: does not take notices: {reason}; trying again"
                        );
                    }
                    let delay = backoff.next_random_delay(asked);
                    if since.elapsed() + delay > self.give_up_after {
                        self.outcomes.given_up.increment(1);
                        let after = self.give_up_after;
                        tracing::error!(
                            target: "varta::alerts",
                            %id,
                            kind,
                            "{url}: a notice ({kind}) was given up after {after:?}: {reason}"
                        );
                        break;
                    }
                    self.outcomes.retried.increment(1);
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        // This attempt was the last one; the next run of the server sends what still counts.
                        () = self.stop.cancelled() => return,
                    }
                }
            }
        }
        let Some(id) = delivery.about else { return };
        let report = if delivery.is_end { Report::SaidEnded(id) } else { Report::Said(id) };
        if self.reports.send(report).await.is_err() {
            // `AlertTask` has ended; the next run of the server may send it again, under the same id.
        }
    }

    fn headers(&self, delivery: &Delivery) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        put(DELIVERY, &delivery.id);
        if let Some(key) = &self.key {
            put(SIGNATURE, &signature(key, unix_seconds(), &delivery.body));
        }
        headers
    }
}

fn unix_seconds() -> u64 {
    wall_now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The signature header: an HMAC over the time of sending and the body.
fn signature(key: &hmac::Key, unix_seconds: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{unix_seconds}.{body}").as_bytes());
    format!("t={unix_seconds},v1={}", hex(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_calculate() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        assert_eq!(
            signature(&key, 1_700_000_000, "{}"),
            "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e"
        );
    }
}
