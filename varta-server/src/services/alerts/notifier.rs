//! The handle by which other services send notifications to the webhook.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::base::clock::wall_now;
use crate::base::time::WallTime;
use crate::services::alerts::metrics::Outcomes;
use crate::services::alerts::notification::{self, Delivery, Notification};
use crate::services::alerts::webhook::Waiting;

/// Sends notifications to the webhook. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(pub(super) Option<Arc<WebhookQueue>>);

/// The queue to the webhook's task.
pub(super) struct WebhookQueue {
    pub(super) queue: mpsc::Sender<Waiting>,
    pub(super) host: String,
    pub(super) outcomes: Outcomes,
    pub(super) said: AtomicU64,
}

impl Notifier {
    /// A notifier without a webhook, which drops everything.
    pub(super) const fn silent() -> Self {
        Notifier(None)
    }

    /// Sends the notification of a recovery action. A full queue drops it and counts it as given up. Does
    /// nothing without a webhook.
    pub(crate) fn send(&self, notice: &Notification) {
        let Some(line) = &self.0 else { return };
        let number = line.said.fetch_add(1, Ordering::Relaxed);
        let now = WallTime::from(wall_now());
        let id = notification::unique_id(&line.host, number, now);
        self.put(Delivery::of_recovery(notice, &line.host, id, now));
    }

    pub(super) fn put(&self, delivery: Delivery) {
        let Some(line) = &self.0 else { return };
        match line.queue.try_send((Instant::now(), delivery)) {
            Ok(()) => {}
            Err(TrySendError::Full((_, delivery)) | TrySendError::Closed((_, delivery))) => {
                line.outcomes.given_up.increment(1);
                let (id, kind) = (&delivery.id, delivery.kind.as_str());
                tracing::warn!(
                    target: "varta::alerts",
                    %id,
                    kind,
                    "a notice ({kind}) is not sent: too many wait for the webhook, or the server ends"
                );
            }
        }
    }
}

impl std::fmt::Debug for WebhookQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}
