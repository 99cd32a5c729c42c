//! Sends alerts to one Alertmanager.
//!
//! The API takes the present state and not events: the task posts the alerts that fire and those that have
//! ended, in batches, after each change and periodically while they fire. An outage of the Alertmanager
//! therefore loses nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::HeaderMap;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::backoff::Backoff;
use crate::base::clock::wall_now;
use crate::base::time::{WallTime, millis};
use crate::services::alerts::alert::{Alert, Id, Texts};
use crate::services::alerts::delivery::Report;
use crate::services::alerts::http_client::{DeliveryResult, post};
use crate::services::alerts::lifecycle::state::AlertSnapshot;
use crate::services::alerts::metrics::Outcomes;
use crate::services::alerts::url::AlertUrl;

/// The most alerts in one request.
const BATCH: usize = 500;
/// `endsAt` of a firing alert, as a multiple of the resend interval: an alert that is not sent again ends by
/// itself.
const LASTS_FOR: u32 = 3;

/// An alert in the form of Alertmanager's API v2.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostedAlerts<'a> {
    labels: &'a Texts,
    annotations: &'a Texts,
    starts_at: WallTime,
    ends_at: WallTime,
}

/// The task that sends to one Alertmanager.
pub(super) struct Alertmanager {
    /// Its position on the command line.
    pub(super) number: usize,
    pub(super) url: AlertUrl,
    pub(super) client: Client,
    pub(super) resend_every: Duration,
    pub(super) give_up_after: Duration,
    pub(super) board: watch::Receiver<Arc<AlertSnapshot>>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) outcomes: Outcomes,
    pub(super) stop: CancellationToken,
}

/// The alerts that one Alertmanager has accepted.
#[derive(Debug, Default)]
struct PostedState {
    /// Alerts that it has as firing.
    firing: HashSet<Id>,
    /// Alerts that it has as ended, until the snapshot no longer contains them.
    ended: HashSet<Id>,
}

impl PostedState {
    /// Forgets alerts that the snapshot no longer contains.
    fn keep_to(&mut self, board: &AlertSnapshot) {
        let ids = |alerts: &[Arc<Alert>]| alerts.iter().map(|alert| Id::of(alert)).collect::<HashSet<_>>();
        let (firing, ended) = (ids(&board.firing), ids(&board.ended));
        self.firing.retain(|id| firing.contains(id));
        self.ended.retain(|id| ended.contains(id));
    }
}

impl Alertmanager {
    /// Runs until it is stopped, then sends once more what is due.
    pub(super) async fn run(mut self) {
        let mut told = PostedState::default();
        let mut backoff = Backoff::default();
        let mut resend_at = Instant::now();
        let mut retry_at = None;
        loop {
            let is_stopping = self.stop.is_cancelled();
            let board = Arc::clone(&self.board.borrow_and_update());
            told.keep_to(&board);
            let now = Instant::now();
            if is_stopping || retry_at.is_none_or(|retry_at| retry_at <= now) {
                let is_resend = resend_at <= now;
                match self.send(&board, &mut told, is_resend).await {
                    Ok(()) => {
                        if retry_at.take().is_some() {
                            tracing::info!(target: "varta::alerts", "{}: takes alerts again", self.url);
                        }
                        backoff.reset();
                        if is_resend {
                            resend_at = now + self.resend_every;
                        }
                    }
                    Err((reason, asked)) => {
                        if retry_at.is_none() {
                            tracing::warn!(
                                target: "varta::alerts",
                                "{}: does not take alerts: {reason}; trying again",
                                self.url
                            );
                        }
                        self.outcomes.retried.increment(1);
                        // A failure must not make resends less frequent.
                        retry_at = Some(now + backoff.next_random_delay(asked).min(self.resend_every));
                    }
                }
            }
            if is_stopping {
                return;
            }
            let wake_at = retry_at.unwrap_or(resend_at);
            let is_idle = board.firing.is_empty() && retry_at.is_none();
            tokio::select! {
                () = self.stop.cancelled() => {}
                changed = self.board.changed(), if retry_at.is_none() => {
                    if changed.is_err() {
                        // `AlertTask` has dropped its sender; the stop follows.
                        self.stop.cancelled().await;
                    }
                }
                () = tokio::time::sleep_until(wake_at), if !is_idle => {}
            }
        }
    }

    /// Sends alerts whose state the Alertmanager does not have, and on a resend all that fire. Stops at the
    /// first failure, with its reason and the delay that the response asked for.
    async fn send(
        &self,
        board: &AlertSnapshot,
        told: &mut PostedState,
        is_resend: bool,
    ) -> Result<(), (String, Option<Duration>)> {
        let now = WallTime::from(wall_now());
        self.give_up_old_ends(board, told, now).await;
        let ended = board.ended.iter().filter(|alert| !told.ended.contains(&Id::of(alert)));
        let firing = board.firing.iter().filter(|alert| is_resend || !told.firing.contains(&Id::of(alert)));
        let due: Vec<_> = ended.chain(firing).collect();
        for batch in due.chunks(BATCH) {
            let posted: Vec<_> = batch.iter().map(|alert| self.posted(alert)).collect();
            let body = serde_json::to_string(&posted).expect("text and times have a form in JSON");
            match post(&self.client, &self.url, HeaderMap::new(), body).await {
                DeliveryResult::Taken => self.outcomes.sent.increment(1),
                DeliveryResult::Refused(reason) => {
                    // A repeat would be refused as well; an alert that still fires goes out with the next
                    // resend.
                    self.outcomes.refused.increment(1);
                    let alerts = batch.len();
                    tracing::error!(
                        target: "varta::alerts",
                        alerts,
                        "{}: refused {alerts} alerts: {reason}",
                        self.url
                    );
                }
                DeliveryResult::Failed(reason, asked) => return Err((reason, asked)),
            }
            for alert in batch {
                self.note(alert, told).await;
            }
        }
        Ok(())
    }

    fn posted<'a>(&self, alert: &'a Alert) -> PostedAlerts<'a> {
        let Alert { labels, annotations, starts_at, ends_at, .. } = alert;
        let ends_at =
            ends_at.unwrap_or_else(|| WallTime::from(wall_now()).after(self.resend_every * LASTS_FOR));
        PostedAlerts { labels, annotations, starts_at: *starts_at, ends_at }
    }

    async fn note(&self, alert: &Alert, told: &mut PostedState) {
        let id = Id::of(alert);
        if alert.ends_at.is_none() {
            told.firing.insert(id);
        } else {
            told.ended.insert(id);
            self.report_end(id).await;
        }
    }

    async fn report_end(&self, id: Id) {
        let report = Report::Ended { alertmanager: self.number, id };
        if self.reports.send(report).await.is_err() {
            // `AlertTask` has ended; the next run of the server sends the end again.
        }
    }

    async fn give_up_old_ends(&self, board: &AlertSnapshot, told: &mut PostedState, now: WallTime) {
        for alert in &board.ended {
            let id = Id::of(alert);
            let is_old = alert.ends_at.is_some_and(|ends_at| now.since(ends_at) > self.give_up_after);
            if is_old && told.ended.insert(id) {
                self.outcomes.given_up.increment(1);
                tracing::warn!(
                    target: "varta::alerts",
                    after_ms = millis(self.give_up_after),
                    "{}: could not be told within {:?} that an alert is over: {:?}",
                    self.url,
                    self.give_up_after,
                    alert.labels
                );
                self.report_end(id).await;
            }
        }
    }
}
