//! Prepares what sends alerts, and starts the task that decides on them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use reqwest::Client;
use ring::hmac;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::base::error::Error;
use crate::services::alerts::alert_file::AlertFile;
use crate::services::alerts::alertmanager::Alertmanager;
use crate::services::alerts::delivery::REPORTS;
use crate::services::alerts::lifecycle::FlapDetection;
use crate::services::alerts::lifecycle::state::{AlertSnapshot, AlertState, Receivers};
use crate::services::alerts::metrics::{AlertMetrics, SINK};
use crate::services::alerts::notifier::{Notifier, WebhookQueue};
use crate::services::alerts::options::AlertOptions;
use crate::services::alerts::settling::Settling;
use crate::services::alerts::task::{AlertTask, Saving, Sweeping};
use crate::services::alerts::url::AlertUrl;
use crate::services::alerts::webhook::Webhook;
use crate::services::alerts::{http_client, task, webhook};
use crate::services::context::Context;
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
    file: Option<AlertFile>,
}

impl Alerts {
    /// Builds the HTTP client; `None` without a receiver. With a state directory alerts survive a restart.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used, or alerts that a newer server wrote.
    pub(crate) fn open(options: AlertOptions, context: &Context) -> Result<Self, Error> {
        if !options.is_on() {
            return Ok(Alerts { sending: None });
        }
        let needs_tls = options.urls().any(AlertUrl::is_https);
        let client = http_client::client(options.ca_file.as_deref(), needs_tls)?;
        let file = context.state_dir.as_ref().map(AlertFile::new);
        file.as_ref().map_or(Ok(()), AlertFile::refuse_newer)?;
        Ok(Alerts { sending: Some(Sending { options, client, file }) })
    }

    /// Starts the task if there is a receiver, and returns the notifier of other services.
    pub(crate) fn start(self, context: &mut Context, pauses: &Pauses) -> Notifier {
        // The metrics exist also without a receiver.
        let metrics = AlertMetrics::new(&context.registry);
        let Some(Sending { options, client, file }) = self.sending else { return Notifier::silent() };
        let (transitions, lost) = context.subscribe_with_loss(SINK);
        let host = context.host.to_string();
        for url in &options.alertmanagers {
            tracing::info!(
                target: "varta::alerts",
                "alerts go to {url}, again every {:?} while they last",
                options.resend_every
            );
        }
        if let Some(url) = &options.webhook {
            let signed = if options.webhook_key.is_some() { "signed" } else { "not signed" };
            tracing::info!(target: "varta::alerts", "notices go to {url}, {signed}");
        }
        let audience =
            Receivers { alertmanagers: options.alertmanagers.len(), webhook: options.webhook.is_some() };
        let damping = FlapDetection { limit: options.flap_limit, window: options.flap_window };
        let book = AlertState::new(audience, damping, host.clone());
        let (to_reports, reports) = mpsc::channel(REPORTS);
        let (board, seen) = watch::channel(Arc::new(AlertSnapshot::default()));
        let stop = CancellationToken::new();
        let mut senders = Vec::new();
        for (number, url) in options.alertmanagers.into_iter().enumerate() {
            let task = Alertmanager {
                number,
                url,
                client: client.clone(),
                resend_every: options.resend_every,
                give_up_after: options.give_up_after,
                board: seen.clone(),
                reports: to_reports.clone(),
                outcomes: metrics.alertmanager.clone(),
                clock_skew: metrics.clock_skew.clone(),
                clock: context.clock,
                stop: stop.clone(),
            };
            senders.push(Box::pin(task.run()) as task::Sender);
        }
        let mut notifier = Notifier::silent();
        if let Some(url) = options.webhook {
            let (queue, waiting) = mpsc::channel(webhook::QUEUE);
            let (outcomes, said) = (metrics.webhook.clone(), AtomicU64::new(0));
            notifier = Notifier(Some(Arc::new(WebhookQueue { queue, host, outcomes, said })));
            let task = Webhook {
                url,
                key: options.webhook_key.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())),
                client,
                give_up_after: options.give_up_after,
                queue: waiting,
                reports: to_reports,
                outcomes: metrics.webhook.clone(),
                stop: stop.clone(),
            };
            senders.push(Box::pin(task.run()) as task::Sender);
        }
        let desk = AlertTask {
            lifecycle: book,
            settling: Settling::default(),
            transitions,
            lost,
            pauses: pauses.clone(),
            clock: context.clock,
            metrics,
            reports,
            board,
            notifier: notifier.clone(),
            senders,
            stop,
            sweeping: Sweeping::new(context.queries.clone()),
            saving: Saving::new(file),
        };
        context.spawn("alerts", desk.run());
        notifier
    }
}
