//! Sending to one Alertmanager, which is told what is so and not what happened: the present alerts, in batches, when they
//! change and again and again while they last. So one that is away for a while misses nothing, and is told nothing twice.

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
use crate::services::alerts::http_client::{Answer, post};
use crate::services::alerts::lifecycle::state::Board;
use crate::services::alerts::metrics::Outcomes;
use crate::services::alerts::url::AlertUrl;

/// Alerts in one request.
const BATCH: usize = 500;
/// An alert that is not sent again ends by itself after so many times that between two of them.
const LASTS_FOR: u32 = 3;

/// An alert as the API takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: &'a Texts,
    annotations: &'a Texts,
    starts_at: WallTime,
    ends_at: WallTime,
}

/// The task for one of them.
pub(super) struct Alertmanager {
    /// Its place on the command line.
    pub(super) number: usize,
    pub(super) url: AlertUrl,
    pub(super) client: Client,
    pub(super) resend_every: Duration,
    pub(super) give_up_after: Duration,
    pub(super) board: watch::Receiver<Arc<Board>>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) outcomes: Outcomes,
    pub(super) stop: CancellationToken,
}

/// What one of them knows.
#[derive(Debug, Default)]
struct Told {
    /// Alerts that it knows to fire.
    firing: HashSet<Id>,
    /// Alerts of which it knows that they have ended, until the board is without them.
    ended: HashSet<Id>,
}

impl Told {
    /// Forgets what is on the board no more.
    fn keep_to(&mut self, board: &Board) {
        let ids = |alerts: &[Arc<Alert>]| alerts.iter().map(|alert| Id::of(alert)).collect::<HashSet<_>>();
        let (firing, ended) = (ids(&board.firing), ids(&board.ended));
        self.firing.retain(|id| firing.contains(id));
        self.ended.retain(|id| ended.contains(id));
    }
}

impl Alertmanager {
    /// Runs until it is stopped, and then tells what it can at once.
    pub(super) async fn run(mut self) {
        let mut told = Told::default();
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
                        // What is to be told again and again is not told less often because it failed once.
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
                        // The book has gone, and the word to stop follows.
                        self.stop.cancelled().await;
                    }
                }
                () = tokio::time::sleep_until(wake_at), if !is_idle => {}
            }
        }
    }

    /// Sends what it does not know, and on a resend everything that fires. Stops at the first failure, with the reason and
    /// for how long it asks to be left alone.
    async fn send(
        &self,
        board: &Board,
        told: &mut Told,
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
                Answer::Taken => self.outcomes.sent.increment(1),
                Answer::Refused(reason) => {
                    // It will be no other the next time; what lasts is tried again with the others.
                    self.outcomes.refused.increment(1);
                    let alerts = batch.len();
                    tracing::error!(
                        target: "varta::alerts",
                        alerts,
                        "{}: refused {alerts} alerts: {reason}",
                        self.url
                    );
                }
                Answer::Failed(reason, asked) => return Err((reason, asked)),
            }
            for alert in batch {
                self.note(alert, told).await;
            }
        }
        Ok(())
    }

    fn posted<'a>(&self, alert: &'a Alert) -> Posted<'a> {
        let Alert { labels, annotations, starts_at, ends_at, .. } = alert;
        let ends_at =
            ends_at.unwrap_or_else(|| WallTime::from(wall_now()).after(self.resend_every * LASTS_FOR));
        Posted { labels, annotations, starts_at: *starts_at, ends_at }
    }

    async fn note(&self, alert: &Alert, told: &mut Told) {
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
            // The server is about to end; the next one tells of it once more.
        }
    }

    async fn give_up_old_ends(&self, board: &Board, told: &mut Told, now: WallTime) {
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
