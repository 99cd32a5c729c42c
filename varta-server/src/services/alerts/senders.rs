//! The tasks that send alerts, one for each receiver: begun, given other settings, and ended as the options say.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::peers::Peers;
use crate::services::alerts::alertmanager::Alertmanager;
use crate::services::alerts::board::{self, AlertBoard, ReceiverName};
use crate::services::alerts::courier::{self, Courier, NoticeReceiver, Setting};
use crate::services::alerts::delivery::Report;
use crate::services::alerts::lifecycle::state::Receivers;
use crate::services::alerts::metrics::{AlertMetrics, Outcomes};
use crate::services::alerts::notifier::{NoticeQueue, Notifier};
use crate::services::alerts::targets::Targets;
use crate::services::alerts::url::AlertUrl;

/// How errors name one of them.
const TASK: &str = "task that sends alerts";
const WEBHOOK: &str = "webhook";
const MAIL: &str = "mail relay";
/// The part of the server that sends to Alertmanagers.
const ALERTMANAGERS: &str = "alertmanagers";

/// All sending tasks.
pub(super) struct Senders {
    /// Each gives whether it was to end.
    tasks: JoinSet<bool>,
    alertmanagers: Vec<RunningAlertmanager>,
    /// The number of the next Alertmanager: none is used twice.
    next_number: usize,
    couriers: Vec<RunningCourier>,
    reports: mpsc::Sender<Report>,
    board: AlertBoard,
    metrics: AlertMetrics,
    clock: Clock,
    notifier: Notifier,
    peers: Peers,
    stop: CancellationToken,
}

struct RunningAlertmanager {
    number: usize,
    url: AlertUrl,
    resend_every: Duration,
    give_up_after: Duration,
    has_ca_file: bool,
    task: AbortHandle,
}

struct RunningCourier {
    destination: &'static str,
    /// Who gets what it sends.
    target: String,
    name: ReceiverName,
    setting: watch::Sender<Setting>,
    removed: CancellationToken,
}

/// What has changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) receivers: Receivers,
    /// The destinations of notices that have been told nothing yet.
    pub(super) new: Vec<&'static str>,
}

impl Senders {
    pub(super) fn new(
        reports: mpsc::Sender<Report>,
        board: AlertBoard,
        metrics: AlertMetrics,
        clock: Clock,
        notifier: Notifier,
        peers: Peers,
        stop: CancellationToken,
    ) -> Self {
        Senders {
            tasks: JoinSet::new(),
            alertmanagers: Vec::new(),
            next_number: 0,
            couriers: Vec::new(),
            reports,
            board,
            metrics,
            clock,
            notifier,
            peers,
            stop,
        }
    }

    /// Sends to these receivers from now on, and to no others. A receiver that stays goes on with what it has.
    pub(super) fn change(&mut self, targets: Targets) -> Changed {
        self.peers.set(ALERTMANAGERS, targets.alertmanagers.iter().map(AlertUrl::authority).collect());
        self.change_alertmanagers(&targets);
        let Targets { webhook, mail, give_up_after, .. } = targets;
        let (to_webhook, by_mail) = (self.metrics.webhook.clone(), self.metrics.mail.clone());
        let webhook = webhook.map(|webhook| NoticeReceiver::Webhook(Box::new(webhook)));
        let mail = mail.map(|mail| NoticeReceiver::Mail(Box::new(mail)));
        let mut new = Vec::new();
        for (destination, receiver, outcomes) in [(WEBHOOK, webhook, to_webhook), (MAIL, mail, by_mail)] {
            if self.change_courier(destination, receiver, give_up_after, outcomes) {
                new.push(destination);
            }
        }
        let names = self.alertmanagers.iter().map(|running| name_of(&running.url));
        let names = names.chain(self.couriers.iter().map(|running| running.name.clone()));
        self.board.sent.set_receivers(names.collect());
        let alertmanagers = self.alertmanagers.iter().map(|running| running.number).collect();
        Changed { receivers: Receivers { alertmanagers, notices: self.notifier.is_on() }, new }
    }

    fn change_alertmanagers(&mut self, targets: &Targets) {
        let mut former = std::mem::take(&mut self.alertmanagers);
        for url in &targets.alertmanagers {
            let place = former.iter().position(|running| running.url == *url);
            let known = place.map(|place| former.remove(place));
            if let Some(running) = known.as_ref() {
                let RunningAlertmanager { resend_every, give_up_after, has_ca_file, .. } = *running;
                // The certificates of a file may be others than before.
                if !has_ca_file
                    && (resend_every, give_up_after, has_ca_file)
                        == (targets.resend_every, targets.give_up_after, targets.has_ca_file)
                {
                    self.alertmanagers.extend(known);
                    continue;
                }
                running.task.abort();
            } else {
                tracing::info!(
                    target: "varta::alerts",
                    "alerts go to {url}, again every {:?} while they last",
                    targets.resend_every
                );
            }
            let number = known.map_or(self.next_number, |running| running.number);
            self.next_number = self.next_number.max(number + 1);
            self.begin_alertmanager(number, url, targets);
        }
        for removed in former {
            removed.task.abort();
            tracing::info!(target: "varta::alerts", "no more alerts go to {}", removed.url);
        }
    }

    fn begin_alertmanager(&mut self, number: usize, url: &AlertUrl, targets: &Targets) {
        let Targets { resend_every, give_up_after, has_ca_file, .. } = *targets;
        let sender = Alertmanager {
            number,
            url: url.clone(),
            client: targets.client.clone(),
            resend_every,
            give_up_after,
            board: self.board.snapshot.clone(),
            reports: self.reports.clone(),
            outcomes: self.metrics.alertmanager.clone(),
            sent: (self.board.sent.clone(), name_of(url)),
            clock_skew: self.metrics.clock_skew.clone(),
            clock: self.clock,
            stop: self.stop.clone(),
        };
        let task = self.tasks.spawn(async move {
            sender.run().await;
            false
        });
        let url = url.clone();
        let running = RunningAlertmanager { number, url, resend_every, give_up_after, has_ca_file, task };
        self.alertmanagers.push(running);
    }

    /// Returns whether the receiver is a new one.
    fn change_courier(
        &mut self,
        destination: &'static str,
        receiver: Option<NoticeReceiver>,
        give_up_after: Duration,
        outcomes: Outcomes,
    ) -> bool {
        let place = self.couriers.iter().position(|running| running.destination == destination);
        let target = receiver.as_ref().map(NoticeReceiver::target);
        match (place.map(|place| &self.couriers[place]), receiver) {
            (None, None) => false,
            (Some(running), Some(receiver)) if Some(&running.target) == target.as_ref() => {
                running.setting.send_replace(Setting { receiver: Arc::new(receiver), give_up_after });
                false
            }
            (_, receiver) => {
                if let Some(place) = place {
                    let running = self.couriers.remove(place);
                    self.notifier.remove(destination);
                    running.removed.cancel();
                }
                let Some(receiver) = receiver else {
                    tracing::info!(target: "varta::alerts", "no more notices go to the {destination}");
                    return false;
                };
                receiver.announce();
                self.begin_courier(
                    destination,
                    target.unwrap_or_default(),
                    receiver,
                    give_up_after,
                    outcomes,
                );
                true
            }
        }
    }

    fn begin_courier(
        &mut self,
        destination: &'static str,
        target: String,
        receiver: NoticeReceiver,
        give_up_after: Duration,
        outcomes: Outcomes,
    ) {
        let (queue, waiting) = mpsc::channel(courier::QUEUE);
        self.notifier.add(NoticeQueue { destination, queue, outcomes: outcomes.clone() });
        let name = receiver.reader_name();
        let (setting, settings) = watch::channel(Setting { receiver: Arc::new(receiver), give_up_after });
        let removed = CancellationToken::new();
        let (reports, stop) = (self.reports.clone(), self.stop.clone());
        let sent = self.board.sent.clone();
        let courier =
            Courier { settings, queue: waiting, reports, outcomes, sent, stop, removed: removed.clone() };
        let is_to_end = removed.clone();
        self.tasks.spawn(async move {
            courier.run().await;
            is_to_end.is_cancelled()
        });
        self.couriers.push(RunningCourier { destination, target, name, setting, removed });
    }

    /// Waits for the end of a task.
    ///
    /// # Errors
    ///
    /// It has ended by itself.
    pub(super) async fn next_end(&mut self) -> Result<(), Error> {
        let Some(ended) = self.tasks.join_next().await else { return std::future::pending().await };
        match ended {
            Ok(true) => Ok(()),
            Err(error) if error.is_cancelled() => Ok(()),
            Ok(false) => Err(Error::ended_unasked(TASK)),
            Err(error) => Err(Error::TaskEnded { task: TASK, fault: error.to_string() }),
        }
    }

    /// Waits for the end of a task after the stop; `None` when all have ended.
    pub(super) async fn join_next(&mut self) -> Option<Result<bool, JoinError>> {
        self.tasks.join_next().await
    }

    pub(super) fn are_none(&self) -> bool {
        self.tasks.is_empty()
    }
}

fn name_of(url: &AlertUrl) -> ReceiverName {
    ReceiverName { kind: board::ALERTMANAGER, name: url.to_string() }
}
