//! Alerts: people are told of agents in alarm, through Alertmanagers and a webhook.
//!
//! What is to be told is in the [`book`], which is pure. The task here hands it changes of verdict, compares it with the
//! tracker now and then, keeps it in a file, and hands what comes of it to one sending task for each destination. All of
//! them are on the main thread, away from the beats.

mod alert;
mod alertmanager;
mod book;
mod desk;
mod file;
mod metrics;
mod moment;
mod notice;
mod options;
mod post;
mod url;
mod webhook;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Client;
use ring::hmac;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::alert::Id;
use self::alertmanager::Alertmanager;
use self::book::{Audience, Board, Book, Damping};
pub(crate) use self::desk::Desk;
use self::desk::{Saving, Sweeping};
use self::file::AlertFile;
use self::metrics::{AlertMetrics, Outcomes};
use self::moment::Wall;
use self::notice::Delivery;
pub(crate) use self::notice::Notice;
pub use self::options::AlertOptions;
pub use self::url::AlertUrl;
use self::webhook::{Waiting, Webhook};
use crate::actor::Query;
use crate::clock::Clock;
use crate::error::Error;
use crate::maintenance::Pauses;
use crate::metrics::Registry;
use crate::sink::Feed;
use crate::store::Store;

/// Words from the sending tasks that may wait. They wait when there are more.
const REPORTS: usize = 1_024;

/// What a sending task has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// An Alertmanager knows that an alert is over, or will not be told any more.
    Ended { alertmanager: usize, id: Id },
    /// The webhook knows that an alert began.
    Said(Id),
    /// The webhook knows that it is over.
    SaidEnded(Id),
}

/// What alerts need, ready to start.
#[derive(Debug)]
pub(crate) struct Alerts {
    options: AlertOptions,
    client: Client,
    file: Option<AlertFile>,
}

/// What alerts need of the rest of the server.
pub(crate) struct Surroundings<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) queries: mpsc::Sender<Query>,
    pub(crate) pauses: Pauses,
    pub(crate) clock: Clock,
    /// The name of this host.
    pub(crate) host: String,
}

/// Alerts that have been started.
pub(crate) struct Started {
    /// Where changes of verdict are to be handed on to, and the task that takes them.
    pub(crate) desk: Option<(Feed, Desk)>,
    /// What others say notices with.
    pub(crate) notifier: Notifier,
}

impl Alerts {
    /// Makes what sends, if anybody is to be told. With a store alerts outlive the server beside it.
    ///
    /// # Errors
    ///
    /// When the file of certificates cannot be used, or descriptors have run out.
    pub(crate) fn new(options: AlertOptions, store: Option<&Store>) -> Result<Option<Self>, Error> {
        if !options.is_on() {
            return Ok(None);
        }
        let needs_tls = options.urls().any(AlertUrl::is_https);
        let client = post::client(options.ca_file.as_deref(), needs_tls)?;
        let place = store.map(Store::share).transpose()?;
        let file = place.map(|(directory, lock)| AlertFile::new(&directory, lock));
        Ok(Some(Alerts { options, client, file }))
    }

    /// Makes the task, if anybody is to be told.
    pub(crate) fn start(alerts: Option<Self>, surroundings: Surroundings<'_>) -> Started {
        let Surroundings { registry, queries, pauses, clock, host } = surroundings;
        // What they count is there also where nobody is to be told.
        let metrics = AlertMetrics::new(registry);
        let (feed, transitions) = Feed::new(registry, "alerts");
        let Some(Alerts { options, client, file }) = alerts else {
            return Started { desk: None, notifier: Notifier::silent() };
        };
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
            Audience { alertmanagers: options.alertmanagers.len(), webhook: options.webhook.is_some() };
        let damping = Damping { limit: options.flap_limit, window: options.flap_window };
        let book = Book::new(audience, damping, host.clone());
        let (to_reports, reports) = mpsc::channel(REPORTS);
        let (board, seen) = watch::channel(Arc::new(Board::default()));
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
                stop: stop.clone(),
            };
            senders.push(Box::pin(task.run()) as desk::Sender);
        }
        let mut notifier = Notifier::silent();
        if let Some(url) = options.webhook {
            let (queue, waiting) = mpsc::channel(webhook::QUEUE);
            let (outcomes, said) = (metrics.webhook.clone(), AtomicU64::new(0));
            notifier = Notifier(Some(Arc::new(Line { queue, host, outcomes, said })));
            let task = Webhook {
                url,
                key: options.webhook_key.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.bytes())),
                client,
                give_up_after: options.give_up_after,
                queue: waiting,
                reports: to_reports,
                outcomes: metrics.webhook.clone(),
                stop: stop.clone(),
            };
            senders.push(Box::pin(task.run()) as desk::Sender);
        }
        let desk = Desk {
            book,
            transitions,
            lost: feed.lost(),
            pauses,
            clock,
            metrics,
            reports,
            board,
            notifier: notifier.clone(),
            senders,
            stop,
            sweeping: Sweeping::new(queries),
            saving: Saving::new(file),
        };
        Started { desk: Some((feed, desk)), notifier }
    }
}

/// Says notices to the webhook. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(Option<Arc<Line>>);

/// The way to the webhook.
struct Line {
    queue: mpsc::Sender<Waiting>,
    host: String,
    outcomes: Outcomes,
    said: AtomicU64,
}

impl Notifier {
    /// One that says nothing to anybody.
    const fn silent() -> Self {
        Notifier(None)
    }

    /// Says what recovery has done. One that finds no place is counted as given up. Without a webhook nothing happens.
    pub(crate) fn say(&self, notice: &Notice) {
        let Some(line) = &self.0 else { return };
        let number = line.said.fetch_add(1, Ordering::Relaxed);
        let now = Wall::now();
        let id = notice::unique_id(&line.host, number, now);
        self.put(Delivery::of_recovery(notice, &line.host, id, now));
    }

    fn put(&self, delivery: Delivery) {
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

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}
