//! Prepares what sends alerts, and starts the task that decides on them.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::base::error::Error;
use crate::services::alerts::alert_file::AlertFile;
use crate::services::alerts::board::{AlertBoard, SentAlerts};
use crate::services::alerts::delivery::REPORTS;
use crate::services::alerts::lifecycle::state::{AlertSnapshot, AlertState};
use crate::services::alerts::metrics::{AlertMetrics, SINK};
use crate::services::alerts::notifier::Notifier;
use crate::services::alerts::options::AlertOptions;
use crate::services::alerts::saving::Saving;
use crate::services::alerts::senders::{Changed, Senders};
use crate::services::alerts::settling::Settling;
use crate::services::alerts::targets::Targets;
use crate::services::alerts::task::{AlertTask, Sweeping};
use crate::services::context::Context;
use crate::services::maintenance::acks::AckRequest;
use crate::services::maintenance::pauses::Pauses;

/// The capability before it runs. Without a receiver, and without a file that may name some, it has its metrics and
/// nothing else.
#[derive(Debug)]
pub(crate) struct Alerts {
    targets: Option<Targets>,
    file: Option<AlertFile>,
    host: Arc<str>,
    to_task: mpsc::Sender<Targets>,
    changes: mpsc::Receiver<Targets>,
}

impl Alerts {
    /// Builds the clients. With a state directory alerts survive a restart.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used, or alerts that a newer server wrote.
    pub(crate) fn open(options: AlertOptions, context: &Context) -> Result<Self, Error> {
        let is_wanted = options.is_on() || options.may_get_receivers;
        let targets = is_wanted.then(|| Targets::open(options, &context.host)).transpose()?;
        let file = targets.as_ref().and(context.state_dir.as_ref()).map(AlertFile::new);
        file.as_ref().map_or(Ok(()), AlertFile::refuse_newer)?;
        let (to_task, changes) = mpsc::channel(1);
        Ok(Alerts { targets, file, host: Arc::clone(&context.host), to_task, changes })
    }

    /// The way to give it other receivers while it runs.
    pub(crate) fn reload(&self) -> Reload {
        Reload { host: Arc::clone(&self.host), to_task: self.to_task.clone() }
    }

    /// Starts the task if there is or may be a receiver, and returns the notifier of other services, and what fires.
    /// `acks` are requests to acknowledge alarms.
    pub(crate) fn start(
        self,
        context: &mut Context,
        pauses: &Pauses,
        acks: Option<mpsc::Receiver<AckRequest>>,
    ) -> (Notifier, AlertBoard) {
        // The metrics exist also without a receiver.
        let metrics = AlertMetrics::new(&context.registry);
        let host = context.host.to_string();
        let notifier = Notifier::new(host.clone());
        let (publish, snapshot) = watch::channel(Arc::new(AlertSnapshot::default()));
        let board = AlertBoard { snapshot, sent: SentAlerts::default() };
        let Alerts { targets: Some(targets), file, changes, .. } = self else { return (notifier, board) };
        let (transitions, forgotten, lost) = context.subscribe_with_forgotten(SINK);
        let (to_reports, reports) = mpsc::channel(REPORTS);
        let stop = CancellationToken::new();
        let damping = targets.damping;
        let mut senders = Senders::new(
            to_reports,
            board.clone(),
            metrics.clone(),
            context.clock,
            notifier.clone(),
            context.peers.clone(),
            stop.clone(),
        );
        let Changed { receivers, .. } = senders.change(targets);
        let task = AlertTask {
            lifecycle: AlertState::new(receivers, damping, host),
            settling: Settling::default(),
            transitions,
            forgotten,
            lost,
            pauses: pauses.clone(),
            clock: context.clock,
            metrics,
            acks,
            reports,
            board: publish,
            sent: board.sent.clone(),
            notifier: notifier.clone(),
            senders,
            changes,
            stop,
            sweeping: Sweeping::new(context.queries.clone()),
            saving: Saving::new(file),
            estate: context.estate.clone(),
        };
        context.spawn("alerts", task.run());
        (notifier, board)
    }
}

/// The way to give it other receivers.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    host: Arc<str>,
    to_task: mpsc::Sender<Targets>,
}

/// Receivers that are told nothing yet.
#[derive(Debug)]
pub(crate) struct Staged {
    targets: Targets,
    to_task: mpsc::Sender<Targets>,
}

impl Reload {
    /// Builds the clients for the receivers of the options, which have been checked. Nothing changes by it.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used.
    pub(crate) fn stage(&self, options: AlertOptions) -> Result<Staged, Error> {
        Ok(Staged { targets: Targets::open(options, &self.host)?, to_task: self.to_task.clone() })
    }
}

impl Staged {
    /// Has them told from now on. `None` when the server is about to end.
    pub(crate) async fn commit(self) -> Option<()> {
        self.to_task.send(self.targets).await.ok()
    }
}
