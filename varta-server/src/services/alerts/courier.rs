//! Delivers notifications to one receiver: those of one agent in order, those of different agents side by
//! side, each until it is accepted, refused or given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::backoff::{Backoff, MIN_DELAY};
use crate::services::alerts::board::{self, ReceiverName, SentAlerts};
use crate::services::alerts::delivery::{Notice, Report};
use crate::services::alerts::http_client::DeliveryResult;
use crate::services::alerts::lanes::Lanes;
use crate::services::alerts::mail::Mail;
use crate::services::alerts::metrics::Outcomes;
use crate::services::alerts::webhook::Webhook;

/// The capacity of the queue of notifications, and of what the task keeps itself.
pub(super) const QUEUE: usize = 4_096;
/// The most notifications on their way at once.
const ON_THEIR_WAY: usize = 8;

/// A queued notification, and since when it waits.
pub(super) type Waiting = (Instant, Arc<Notice>);

/// A receiver that gets each notification once.
pub(super) enum NoticeReceiver {
    Webhook(Box<Webhook>),
    Mail(Box<Mail>),
}

impl NoticeReceiver {
    async fn send(&self, notice: &Notice) -> DeliveryResult {
        match self {
            NoticeReceiver::Webhook(webhook) => webhook.send(&notice.delivery).await,
            NoticeReceiver::Mail(mail) => mail.send(&notice.delivery).await,
        }
    }

    /// Who gets the notifications: with another one, another receiver takes its place.
    pub(super) fn target(&self) -> String {
        match self {
            NoticeReceiver::Webhook(webhook) => webhook.url.get().to_string(),
            NoticeReceiver::Mail(mail) => mail.target(),
        }
    }

    /// Logs where notifications go.
    pub(super) fn announce(&self) {
        match self {
            NoticeReceiver::Webhook(webhook) => {
                let signed = if webhook.key.is_some() { "signed" } else { "not signed" };
                tracing::info!(target: "varta::alerts", "notices go to {}, {signed}", webhook.url);
            }
            NoticeReceiver::Mail(mail) => {
                tracing::info!(target: "varta::alerts", "notices go out as mails by {}", mail.name());
            }
        }
    }

    /// By what readers know it.
    pub(super) fn reader_name(&self) -> ReceiverName {
        let kind = match self {
            NoticeReceiver::Webhook(_) => board::WEBHOOK,
            NoticeReceiver::Mail(_) => board::MAIL,
        };
        ReceiverName { kind, name: self.name() }
    }

    /// Its address without secrets, for the log.
    fn name(&self) -> String {
        match self {
            NoticeReceiver::Webhook(webhook) => webhook.url.to_string(),
            NoticeReceiver::Mail(mail) => mail.name().to_owned(),
        }
    }
}

/// How it is sent at present.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) receiver: Arc<NoticeReceiver>,
    pub(super) give_up_after: Duration,
}

/// The task that delivers to one receiver.
pub(super) struct Courier {
    pub(super) settings: watch::Receiver<Setting>,
    pub(super) queue: mpsc::Receiver<Waiting>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) outcomes: Outcomes,
    pub(super) sent: SentAlerts,
    pub(super) stop: CancellationToken,
    /// Cancelled when the options do not name the receiver any more.
    pub(super) removed: CancellationToken,
}

/// What came of one attempt.
struct Attempt {
    agent: String,
    since: Instant,
    notice: Arc<Notice>,
    result: DeliveryResult,
}

/// What the task knows of the receiver.
#[derive(Default)]
struct State {
    is_failing: bool,
    is_stopping: bool,
    is_removed: bool,
    /// Until when the receiver asked for no further request.
    asked_until: Option<Instant>,
}

impl Courier {
    /// Runs until it is stopped, then tries each notification that waits once. One whose receiver is removed gives up
    /// what waits.
    pub(super) async fn run(self) {
        let Courier { mut settings, mut queue, reports, outcomes, sent, stop, removed } = self;
        let Setting { mut receiver, give_up_after } = settings.borrow_and_update().clone();
        let mut settlement =
            Settlement { name: receiver.reader_name(), give_up_after, reports, outcomes, sent };
        let mut lanes: Lanes<Waiting> = Lanes::new();
        let mut attempts: JoinSet<Attempt> = JoinSet::new();
        let mut state = State::default();
        let mut is_open = true;
        loop {
            let now = Instant::now();
            state.asked_until = state.asked_until.filter(|until| *until > now && !state.is_stopping);
            while state.asked_until.is_none()
                && attempts.len() < ON_THEIR_WAY
                && let Some((agent, (since, notice))) = lanes.next(now)
            {
                let receiver = Arc::clone(&receiver);
                attempts.spawn(async move {
                    let result = receiver.send(&notice).await;
                    Attempt { agent, since, notice, result }
                });
            }
            if !is_open && lanes.len() == 0 && attempts.is_empty() {
                return;
            }
            let wake_at = state.asked_until.or_else(|| lanes.next_at());
            tokio::select! {
                biased;
                Some(attempt) = attempts.join_next() => match attempt {
                    Ok(attempt) => settlement.note(attempt, &mut lanes, &mut state).await,
                    // It panicked. `AlertTask` ends the server when this task does.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = removed.cancelled(), if !state.is_removed => {
                    (state.is_removed, state.is_stopping) = (true, true);
                    queue.close();
                    while let Some((_, notice)) = queue.recv().await {
                        settlement.drop_undelivered(&notice).await;
                    }
                    for (_, notice) in lanes.take_all() {
                        settlement.drop_undelivered(&notice).await;
                    }
                    is_open = false;
                }
                Ok(()) = settings.changed() => {
                    let setting = settings.borrow_and_update().clone();
                    (receiver, settlement.give_up_after) = (setting.receiver, setting.give_up_after);
                    settlement.name = receiver.reader_name();
                }
                waiting = queue.recv(), if is_open && lanes.len() < QUEUE => match waiting {
                    Some(waiting) => {
                        let agent = waiting.1.delivery.lane.clone();
                        lanes.push(&agent, waiting);
                    }
                    None => is_open = false,
                },
                () = stop.cancelled(), if !state.is_stopping => {
                    state.is_stopping = true;
                    // A closed queue still yields its content.
                    queue.close();
                    lanes.hurry();
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
            }
        }
    }
}

/// By what attempts are judged.
struct Settlement {
    name: ReceiverName,
    give_up_after: Duration,
    reports: mpsc::Sender<Report>,
    outcomes: Outcomes,
    sent: SentAlerts,
}

impl Settlement {
    /// Counts a notification whose receiver is gone.
    async fn drop_undelivered(&self, notice: &Notice) {
        self.outcomes.given_up.increment(1);
        let (id, kind) = (&notice.delivery.id, notice.delivery.kind.as_str());
        tracing::warn!(
            target: "varta::alerts",
            %id,
            kind,
            "{}: a notice ({kind}) is given up: it gets no more",
            self.name.name
        );
        self.report(notice).await;
    }

    /// Reports that the receiver is done with a notification.
    async fn report(&self, notice: &Notice) {
        if let Some(report) = notice.settle()
            && self.reports.send(report).await.is_err()
        {
            // `AlertTask` has ended; the next run of the server may send it again, under the same id.
        }
    }

    async fn note(&self, attempt: Attempt, lanes: &mut Lanes<Waiting>, state: &mut State) {
        let Attempt { agent, since, notice, result } = attempt;
        let (name, id, kind) = (&self.name.name, &notice.delivery.id, notice.delivery.kind.as_str());
        tracing::debug!(target: "varta::alerts", %id, kind, "{name}: the notice {id} ({kind}) is {result}");
        let about = notice.delivery.about.filter(|_| !notice.delivery.is_end);
        if let Some(about) = about {
            self.sent.note(about, &self.name, &result);
        }
        match result {
            DeliveryResult::Taken => {
                self.outcomes.sent.increment(1);
                if std::mem::take(&mut state.is_failing) {
                    tracing::info!(target: "varta::alerts", "{name}: takes notices again");
                }
            }
            DeliveryResult::Refused(reason) => {
                self.outcomes.refused.increment(1);
                tracing::error!(
                    target: "varta::alerts",
                    %id,
                    kind,
                    "{name}: refused a notice ({kind}), which is not sent again: {reason}"
                );
            }
            DeliveryResult::Failed(reason, asked) => {
                if !std::mem::replace(&mut state.is_failing, true) {
                    tracing::warn!(
                        target: "varta::alerts",
                        %id,
                        kind,
                        "{name}: does not take notices: {reason}; trying again"
                    );
                }
                if state.is_removed {
                    self.drop_undelivered(&notice).await;
                    lanes.finish(agent);
                    return;
                }
                if state.is_stopping {
                    // This attempt was the last one; the next run of the server sends what still counts.
                    lanes.finish(agent);
                    return;
                }
                let now = Instant::now();
                let mut backoff: Backoff = lanes.backoff(&agent);
                let delay = backoff.next_random_delay(asked);
                if asked.is_some() {
                    state.asked_until = Some(now + delay.max(MIN_DELAY));
                }
                if since.elapsed() + delay <= self.give_up_after {
                    self.outcomes.retried.increment(1);
                    lanes.retry(agent, (since, notice), backoff, now + delay);
                    return;
                }
                self.outcomes.given_up.increment(1);
                if let Some(about) = about {
                    self.sent.give_up(about, &self.name, &reason);
                }
                let after = self.give_up_after;
                tracing::error!(
                    target: "varta::alerts",
                    %id,
                    kind,
                    "{name}: a notice ({kind}) was given up after {after:?}: {reason}"
                );
            }
        }
        lanes.finish(agent);
        self.report(&notice).await;
    }
}
