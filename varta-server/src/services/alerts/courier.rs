//! Delivers notifications to one receiver: those of one agent in order, those of different agents side by
//! side, each until it is accepted, refused or given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::backoff::{Backoff, MIN_DELAY};
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

    /// Its address without secrets, for the log.
    fn name(&self) -> String {
        match self {
            NoticeReceiver::Webhook(webhook) => webhook.url.to_string(),
            NoticeReceiver::Mail(mail) => mail.name().to_owned(),
        }
    }
}

/// The task that delivers to one receiver.
pub(super) struct Courier {
    pub(super) receiver: NoticeReceiver,
    pub(super) give_up_after: Duration,
    pub(super) queue: mpsc::Receiver<Waiting>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) outcomes: Outcomes,
    pub(super) stop: CancellationToken,
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
    /// Until when the receiver asked for no further request.
    asked_until: Option<Instant>,
}

impl Courier {
    /// Runs until it is stopped, then tries each notification that waits once.
    pub(super) async fn run(self) {
        let Courier { receiver, give_up_after, mut queue, reports, outcomes, stop } = self;
        let receiver = Arc::new(receiver);
        let settlement = Settlement { name: receiver.name(), give_up_after, reports, outcomes };
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
    name: String,
    give_up_after: Duration,
    reports: mpsc::Sender<Report>,
    outcomes: Outcomes,
}

impl Settlement {
    async fn note(&self, attempt: Attempt, lanes: &mut Lanes<Waiting>, state: &mut State) {
        let Attempt { agent, since, notice, result } = attempt;
        let (name, id, kind) = (&self.name, &notice.delivery.id, notice.delivery.kind.as_str());
        tracing::debug!(target: "varta::alerts", %id, kind, "{name}: the notice {id} ({kind}) is {result}");
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
        if let Some(report) = notice.settle()
            && self.reports.send(report).await.is_err()
        {
            // `AlertTask` has ended; the next run of the server may send it again, under the same id.
        }
    }
}
