//! Sends alerts to one Alertmanager.
//!
//! The API takes the present state and not events: the task posts the alerts that fire and those that have
//! ended, in batches, after each change and periodically: while they fire, and for a quarter of an hour after
//! their end. An outage or a restart of the Alertmanager therefore loses nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use reqwest::Client;
use reqwest::header::HeaderMap;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::backoff::Backoff;
use crate::base::clock::{Clock, WallClock};
use crate::base::time::{MonoTime, WallTime, millis};
use crate::services::alerts::alert::{Alert, Id, Texts};
use crate::services::alerts::board::{ReceiverName, SentAlerts};
use crate::services::alerts::delivery::Report;
use crate::services::alerts::http_client::{Answer, DeliveryResult, JSON, post};
use crate::services::alerts::lifecycle::state::AlertSnapshot;
use crate::services::alerts::metrics::Outcomes;
use crate::services::alerts::receiver_clock::{ClockSkew, ReceiverClock, SentTimes};
use crate::services::alerts::url::AlertUrl;

/// The most alerts in one request, not counting those of the agent of the last one.
const BATCH: usize = 500;
/// `endsAt` of a firing alert, as a multiple of the resend interval: an alert that is not sent again ends by
/// itself.
const LASTS_FOR: u32 = 3;
/// The longest interval at which ends are repeated. They are repeated for a quarter of an hour.
const REPEAT_ENDS_WITHIN: Duration = Duration::from_secs(60);
/// The shortest time between two warnings of a clock that differs.
const WARN_OF_SKEW_EVERY: Duration = Duration::from_secs(3_600);

/// An alert in the form of Alertmanager's API v2.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostedAlert<'a> {
    labels: &'a Texts,
    annotations: &'a Texts,
    starts_at: WallTime,
    ends_at: WallTime,
}

/// The task that sends to one Alertmanager.
pub(super) struct Alertmanager {
    /// Its number, which no other has had.
    pub(super) number: usize,
    pub(super) url: AlertUrl,
    pub(super) client: Client,
    pub(super) resend_every: Duration,
    pub(super) give_up_after: Duration,
    pub(super) board: watch::Receiver<Arc<AlertSnapshot>>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) outcomes: Outcomes,
    /// What became of each alert, under this name.
    pub(super) sent: (SentAlerts, ReceiverName),
    /// Counts answers that show another time than this host's clock.
    pub(super) clock_skew: Counter,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

/// What one Alertmanager has accepted, and what its clock shows.
#[derive(Debug, Default)]
struct PostedState {
    /// Alerts that it has as firing.
    firing: HashSet<Id>,
    /// Alerts that it has as ended, with the times that it got, until the snapshot no longer contains them.
    ended: HashMap<Id, SentTimes>,
    /// Ends that it refused, until they are repeated.
    refused: HashSet<Id>,
    /// Ends that were given up.
    given_up: HashSet<Id>,
    clock: ReceiverClock,
    warned_of_skew: Option<MonoTime>,
}

impl PostedState {
    /// Forgets alerts that the snapshot no longer contains.
    fn keep_to(&mut self, board: &AlertSnapshot) {
        let ids = |alerts: &[Arc<Alert>]| alerts.iter().map(|alert| Id::of(alert)).collect::<HashSet<_>>();
        let (firing, ended) = (ids(&board.firing), ids(&board.ended));
        self.firing.retain(|id| firing.contains(id));
        self.ended.retain(|id, _| ended.contains(id));
        self.refused.retain(|id| ended.contains(id));
        self.given_up.retain(|id| ended.contains(id));
    }

    /// The alerts to send, those of one agent side by side: the end of an alert and the worse one that takes
    /// its place go in one request.
    fn due<'b>(&self, board: &'b AlertSnapshot, turn: Turn) -> Vec<&'b Arc<Alert>> {
        let ended = board.ended.iter().filter(|alert| {
            let id = Id::of(alert);
            let is_known = self.ended.contains_key(&id) || self.refused.contains(&id);
            !self.given_up.contains(&id) && (turn.repeats_ends || !is_known)
        });
        let firing =
            board.firing.iter().filter(|alert| turn.resends || !self.firing.contains(&Id::of(alert)));
        let mut due: Vec<_> = ended.chain(firing).collect();
        due.sort_by_key(|alert| alert.instance());
        due
    }
}

/// What is sent again in one turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    resends: bool,
    repeats_ends: bool,
}

/// Why not all was sent.
enum Unsent {
    /// The Alertmanager does not take alerts: the reason, and the delay that it asked for.
    Failed(String, Option<Duration>),
    /// It took an end that its clock has in the future.
    TooEarly,
}

impl Alertmanager {
    /// Runs until it is stopped, then sends once more what is due.
    pub(super) async fn run(mut self) {
        let mut told = PostedState::default();
        let mut backoff = Backoff::default();
        let repeat_every = self.resend_every.min(REPEAT_ENDS_WITHIN);
        let (mut resend_at, mut repeat_at) = (Instant::now(), Instant::now());
        let mut retry_at = None;
        loop {
            let is_stopping = self.stop.is_cancelled();
            let board = Arc::clone(&self.board.borrow_and_update());
            told.keep_to(&board);
            let now = Instant::now();
            if is_stopping || retry_at.is_none_or(|retry_at| retry_at <= now) {
                let turn = Turn { resends: resend_at <= now, repeats_ends: repeat_at <= now };
                match self.send(&board, &mut told, turn).await {
                    Ok(()) => {
                        if retry_at.take().is_some() {
                            tracing::info!(target: "varta::alerts", "{}: takes alerts again", self.url);
                        }
                        backoff.reset();
                        if turn.resends {
                            resend_at = now + self.resend_every;
                        }
                        if turn.repeats_ends {
                            repeat_at = now + repeat_every;
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
                        retry_at = Some(now + backoff.next_random_delay(asked).min(repeat_every));
                    }
                }
            }
            if is_stopping {
                return;
            }
            let resend_at = Some(resend_at).filter(|_| !board.firing.is_empty());
            let repeat_at = Some(repeat_at).filter(|_| !board.ended.is_empty());
            let wake_at = retry_at.or_else(|| resend_at.into_iter().chain(repeat_at).min());
            tokio::select! {
                () = self.stop.cancelled() => {}
                changed = self.board.changed(), if retry_at.is_none() => {
                    if changed.is_err() {
                        // `AlertTask` has dropped its sender; the stop follows.
                        self.stop.cancelled().await;
                    }
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
            }
        }
    }

    /// Sends alerts whose state the Alertmanager does not have, and in its turn all that fire or have ended.
    /// Stops at the first failure, with its reason and the delay that the response asked for.
    async fn send(
        &self,
        board: &AlertSnapshot,
        told: &mut PostedState,
        turn: Turn,
    ) -> Result<(), (String, Option<Duration>)> {
        self.give_up_old_ends(board, told).await;
        if turn.repeats_ends {
            told.refused.clear();
        }
        let mut due = told.due(board, turn);
        for _ in 0..2 {
            match self.send_all(&due, told).await {
                Ok(()) => break,
                Err(Unsent::Failed(reason, asked)) => return Err((reason, asked)),
                // Its clock is known by now, and by it the times are right.
                Err(Unsent::TooEarly) => {}
            }
            due = told.due(board, Turn { resends: false, repeats_ends: false });
        }
        Ok(())
    }

    async fn send_all(&self, due: &[&Arc<Alert>], told: &mut PostedState) -> Result<(), Unsent> {
        let mut is_too_early = false;
        for batch in batches(due) {
            let asked = WallClock::read(self.clock);
            let sent: Vec<_> = batch.iter().map(|alert| self.times(alert, told, asked)).collect();
            let posted: Vec<_> =
                batch.iter().zip(&sent).map(|(alert, times)| posted(alert, *times)).collect();
            let body = serde_json::to_string(&posted).expect("text and times have a form in JSON");
            let Answer { result, date } = post(&self.client, &self.url, JSON, HeaderMap::new(), body).await;
            let now = WallClock::read(self.clock);
            let skew = told.clock.learn(date, asked.mono, now);
            self.note_skew(skew, told, now.mono);
            let (sent_alerts, name) = &self.sent;
            for alert in batch.iter().filter(|alert| alert.ends_at.is_none()) {
                sent_alerts.note(Id::of(alert), name, &result);
            }
            match result {
                DeliveryResult::Taken => self.outcomes.sent.increment(1),
                DeliveryResult::Refused(reason) => {
                    self.outcomes.refused.increment(1);
                    let alerts = batch.len();
                    tracing::error!(
                        target: "varta::alerts",
                        alerts,
                        "{}: refused {alerts} alerts, which are sent again: {reason}",
                        self.url
                    );
                    // Both go out with the next resend; until then a repeat would be refused as well.
                    for alert in batch {
                        let refused =
                            if alert.ends_at.is_none() { &mut told.firing } else { &mut told.refused };
                        refused.insert(Id::of(alert));
                    }
                    continue;
                }
                DeliveryResult::Failed(reason, asked) => return Err(Unsent::Failed(reason, asked)),
            }
            for (alert, times) in batch.iter().zip(sent) {
                is_too_early |= !self.note(alert, times, told, now).await;
            }
        }
        if is_too_early { Err(Unsent::TooEarly) } else { Ok(()) }
    }

    /// The times of an alert as this Alertmanager should get them. An end that it has is repeated as it was.
    fn times(&self, alert: &Alert, told: &PostedState, now: WallClock) -> SentTimes {
        let Some(ends_at) = alert.ends_at else {
            return told.clock.of_firing(alert.starts_at, self.resend_every * LASTS_FOR, now);
        };
        let before = told.ended.get(&Id::of(alert)).filter(|times| told.clock.has_passed(times.ends_at, now));
        before.copied().unwrap_or_else(|| told.clock.of_end(alert.starts_at, ends_at, now))
    }

    /// Notes that an alert was taken. `false` for an end that is not over by the Alertmanager's clock: it
    /// takes that for an alert that still fires.
    async fn note(&self, alert: &Alert, times: SentTimes, told: &mut PostedState, now: WallClock) -> bool {
        let id = Id::of(alert);
        if alert.ends_at.is_none() {
            told.firing.insert(id);
            return true;
        }
        if !told.clock.has_passed(times.ends_at, now) {
            told.ended.remove(&id);
            return false;
        }
        if told.ended.insert(id, times).is_none() {
            self.report_end(id).await;
        }
        true
    }

    /// Counts a clock that differs, and warns of it now and then.
    fn note_skew(&self, skew: Option<ClockSkew>, told: &mut PostedState, now: MonoTime) {
        let Some(skew) = skew else { return };
        self.clock_skew.increment(1);
        if told.warned_of_skew.is_some_and(|warned_at| now.since(warned_at) < WARN_OF_SKEW_EVERY) {
            return;
        }
        told.warned_of_skew = Some(now);
        let (side, by) = match skew {
            ClockSkew::Ahead(by) => ("ahead of", by),
            ClockSkew::Behind(by) => ("behind", by),
        };
        tracing::warn!(
            target: "varta::alerts",
            skew_ms = millis(by),
            "{}: this host's clock is {by:.0?} {side} the Date of its answers; the times of alerts are sent by its clock; \
             synchronise the clocks of both hosts",
            self.url
        );
    }

    async fn report_end(&self, id: Id) {
        let report = Report::Ended { alertmanager: self.number, id };
        if self.reports.send(report).await.is_err() {
            // `AlertTask` has ended; the next run of the server sends the end again.
        }
    }

    async fn give_up_old_ends(&self, board: &AlertSnapshot, told: &mut PostedState) {
        let now = WallClock::read(self.clock).wall;
        for alert in &board.ended {
            let id = Id::of(alert);
            let is_old = alert.ends_at.is_some_and(|ends_at| now.since(ends_at) > self.give_up_after);
            if is_old && !told.ended.contains_key(&id) && told.given_up.insert(id) {
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

fn posted(alert: &Alert, SentTimes { starts_at, ends_at }: SentTimes) -> PostedAlert<'_> {
    PostedAlert { labels: &alert.labels, annotations: &alert.annotations, starts_at, ends_at }
}

/// The alerts in requests of [`BATCH`] or a few more: alerts of one agent are not separated.
fn batches<'a, 'b>(mut due: &'a [&'b Arc<Alert>]) -> impl Iterator<Item = &'a [&'b Arc<Alert>]> {
    std::iter::from_fn(move || {
        let last = due.get(..BATCH.min(due.len()))?.last()?;
        let more = due[BATCH.min(due.len())..].iter().take_while(|alert| {
            let instance = alert.instance();
            !instance.is_empty() && instance == last.instance()
        });
        let (batch, rest) = due.split_at(BATCH.min(due.len()) + more.count());
        due = rest;
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::alerts::alert::Subject;

    fn alert(instance: usize, name: &str, ends_at: Option<WallTime>) -> Arc<Alert> {
        let labels = [("instance", format!("{instance:05}")), ("alertname", name.to_owned())];
        Arc::new(Alert {
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
            annotations: Texts::new(),
            starts_at: WallTime::default(),
            ends_at,
            subject: Subject::Many,
            state: String::new(),
            cause: String::new(),
            is_flapping: false,
            is_said: false,
        })
    }

    #[test]
    fn the_end_of_an_alert_and_the_worse_one_in_its_place_go_in_one_request() {
        let board = AlertSnapshot {
            firing: (0..1_200).map(|number| alert(number, "worse", None)).collect(),
            ended: (0..1_200).map(|number| alert(number, "former", Some(WallTime::default()))).collect(),
        };
        let due = PostedState::default().due(&board, Turn { resends: true, repeats_ends: true });
        assert_eq!(due.len(), 2_400);
        let mut sent = 0;
        for batch in batches(&due) {
            assert!((1..=BATCH + 1).contains(&batch.len()));
            sent += batch.len();
            for alert in batch {
                let of_it = batch.iter().filter(|other| other.instance() == alert.instance()).count();
                assert_eq!(of_it, 2, "{}", alert.instance());
            }
        }
        assert_eq!(sent, due.len());
    }

    #[test]
    fn an_end_that_was_refused_waits_for_its_turn_and_one_that_was_given_up_is_sent_no_more() {
        let ended = alert(1, "ended", Some(WallTime::default()));
        let id = Id::of(&ended);
        let board = AlertSnapshot { firing: Vec::new(), ended: vec![ended] };
        let [always, now_and_then] = [false, true].map(|repeats_ends| Turn { resends: false, repeats_ends });
        let mut told = PostedState::default();
        let counts = |told: &PostedState| [always, now_and_then].map(|turn| told.due(&board, turn).len());
        assert_eq!(counts(&told), [1, 1]);
        told.refused.insert(id);
        assert_eq!(counts(&told), [0, 1]);
        let times = SentTimes { starts_at: WallTime::default(), ends_at: WallTime::default() };
        told.ended.insert(id, times);
        assert_eq!(counts(&told), [0, 1]);
        told.given_up.insert(id);
        assert_eq!(counts(&told), [0, 0]);
        told.keep_to(&AlertSnapshot::default());
        assert!(told.ended.is_empty() && told.refused.is_empty() && told.given_up.is_empty());
    }
}
