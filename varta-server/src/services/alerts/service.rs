//! Prepares what sends alerts, and starts the task that decides on them.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use ring::hmac;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::base::error::Error;
use crate::services::alerts::alert_file::AlertFile;
use crate::services::alerts::alertmanager::Alertmanager;
use crate::services::alerts::courier::{self, Courier, NoticeReceiver};
use crate::services::alerts::delivery::{REPORTS, Report};
use crate::services::alerts::lifecycle::FlapDetection;
use crate::services::alerts::lifecycle::state::{AlertSnapshot, AlertState, Receivers};
use crate::services::alerts::mail::Mail;
use crate::services::alerts::metrics::{AlertMetrics, Outcomes, SINK};
use crate::services::alerts::notifier::{NoticeQueue, Notifier};
use crate::services::alerts::options::AlertOptions;
use crate::services::alerts::settling::Settling;
use crate::services::alerts::task::{AlertTask, Saving, Sweeping};
use crate::services::alerts::url::AlertUrl;
use crate::services::alerts::webhook::Webhook;
use crate::services::alerts::{http_client, task};
use crate::services::context::Context;
use crate::services::maintenance::acks::AckRequest;
use crate::services::maintenance::pauses::Pauses;

/// The capability before it runs. Without a destination it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct Alerts {
    sending: Option<Sending>,
}

/// What sends alerts.
#[derive(Debug)]
struct Sending {
    options: AlertOptions,
    client: Client,
    mail: Option<Mail>,
    file: Option<AlertFile>,
}

/// What all sending tasks share.
struct Sendings {
    senders: Vec<task::Sender>,
    queues: Vec<NoticeQueue>,
    reports: mpsc::Sender<Report>,
    stop: CancellationToken,
}

impl Alerts {
    /// Builds the clients; `None` without a receiver. With a state directory alerts survive a restart.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used, or alerts that a newer server wrote.
    pub(crate) fn open(mut options: AlertOptions, context: &Context) -> Result<Self, Error> {
        if !options.is_on() {
            return Ok(Alerts { sending: None });
        }
        let needs_tls = options.urls().any(AlertUrl::is_https);
        let ca_file = options.ca_file.as_deref();
        let client = http_client::client(ca_file, "--alert-ca-file", needs_tls)?;
        let mail = options.mail.take().map(|mail| Mail::open(mail, ca_file, &context.host)).transpose()?;
        let file = context.state_dir.as_ref().map(AlertFile::new);
        file.as_ref().map_or(Ok(()), AlertFile::refuse_newer)?;
        Ok(Alerts { sending: Some(Sending { options, client, mail, file }) })
    }

    /// Starts the task if there is a receiver, and returns the notifier of other services. `acks` are requests to
    /// acknowledge alarms.
    pub(crate) fn start(
        self,
        context: &mut Context,
        pauses: &Pauses,
        acks: Option<mpsc::Receiver<AckRequest>>,
    ) -> Notifier {
        // The metrics exist also without a receiver.
        let metrics = AlertMetrics::new(&context.registry);
        let host = context.host.to_string();
        let Some(Sending { options, client, mail, file }) = self.sending else {
            return Notifier::new(host, Vec::new());
        };
        let (transitions, forgotten, lost) = context.subscribe_with_forgotten(SINK);
        for url in &options.alertmanagers {
            tracing::info!(
                target: "varta::alerts",
                "alerts go to {url}, again every {:?} while they last",
                options.resend_every
            );
        }
        let alertmanagers = options.alertmanagers.len();
        let (to_reports, reports) = mpsc::channel(REPORTS);
        let (board, seen) = watch::channel(Arc::new(AlertSnapshot::default()));
        let stop = CancellationToken::new();
        let mut sendings =
            Sendings { senders: Vec::new(), queues: Vec::new(), reports: to_reports, stop: stop.clone() };
        for (number, url) in options.alertmanagers.into_iter().enumerate() {
            let task = Alertmanager {
                number,
                url,
                client: client.clone(),
                resend_every: options.resend_every,
                give_up_after: options.give_up_after,
                board: seen.clone(),
                reports: sendings.reports.clone(),
                outcomes: metrics.alertmanager.clone(),
                clock_skew: metrics.clock_skew.clone(),
                clock: context.clock,
                stop: stop.clone(),
            };
            sendings.senders.push(Box::pin(task.run()));
        }
        let give_up_after = options.give_up_after;
        if let Some(url) = options.webhook {
            let signed = if options.webhook_key.is_some() { "signed" } else { "not signed" };
            tracing::info!(target: "varta::alerts", "notices go to {url}, {signed}");
            let key = options.webhook_key.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
            let (signature, template) = (options.webhook_signature, options.webhook_template);
            let webhook = Webhook { url, key, signature, template, client };
            sendings.add(
                "webhook",
                NoticeReceiver::Webhook(Box::new(webhook)),
                give_up_after,
                metrics.webhook.clone(),
            );
        }
        if let Some(mail) = mail {
            tracing::info!(target: "varta::alerts", "notices go out as mails by {}", mail.name());
            let receiver = NoticeReceiver::Mail(Box::new(mail));
            sendings.add("mail relay", receiver, give_up_after, metrics.mail.clone());
        }
        let Sendings { senders, queues, .. } = sendings;
        let notifier = Notifier::new(host.clone(), queues);
        let audience = Receivers { alertmanagers, notices: notifier.is_on() };
        let damping = FlapDetection { limit: options.flap_limit, window: options.flap_window };
        let task = AlertTask {
            lifecycle: AlertState::new(audience, damping, host),
            settling: Settling::default(),
            transitions,
            forgotten,
            lost,
            pauses: pauses.clone(),
            clock: context.clock,
            metrics,
            acks,
            reports,
            board,
            notifier: notifier.clone(),
            senders,
            stop,
            sweeping: Sweeping::new(context.queries.clone()),
            saving: Saving::new(file),
        };
        context.spawn("alerts", task.run());
        notifier
    }
}

impl Sendings {
    /// Adds the task and the queue of a receiver that gets each notification once.
    fn add(
        &mut self,
        destination: &'static str,
        receiver: NoticeReceiver,
        give_up_after: Duration,
        outcomes: Outcomes,
    ) {
        let (queue, waiting) = mpsc::channel(courier::QUEUE);
        self.queues.push(NoticeQueue { destination, queue, outcomes: outcomes.clone() });
        let (reports, stop) = (self.reports.clone(), self.stop.clone());
        let task = Courier { receiver, give_up_after, queue: waiting, reports, outcomes, stop };
        self.senders.push(Box::pin(task.run()));
    }
}
