//! The alert task: drives the alert state with transitions, reports, sweeps and time, and passes on its
//! output.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, WallClock, wall_now};
use crate::base::error::Error;
use crate::domain::tracker::{Forgotten, Transition};
use crate::engine::handover::Estate;
use crate::engine::query::{Alarms, Query};
use crate::services::alerts::alert_file::KeptAlerts;
use crate::services::alerts::board::SentAlerts;
use crate::services::alerts::delivery::Report;
use crate::services::alerts::lifecycle::Acknowledged;
use crate::services::alerts::lifecycle::state::{AlertSnapshot, AlertState};
use crate::services::alerts::metrics::AlertMetrics;
use crate::services::alerts::notifier::Notifier;
use crate::services::alerts::saving::Saving;
use crate::services::alerts::senders::{Changed, Senders};
use crate::services::alerts::settling::Settling;
use crate::services::alerts::targets::Targets;
use crate::services::maintenance::acks::{AckAction, AckOutcome, AckRequest};
use crate::services::maintenance::pauses::Pauses;

/// The most transitions handled before other events get a turn.
const TURN: usize = 1_024;
/// From the end of a sweep to the start of the next one.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The same after a transition was lost.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);
/// The interval at which pauses are checked for firing alerts.
const LOOK_AT_PAUSES_EVERY: Duration = Duration::from_secs(1);
/// The time limit for pending notifications when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The name of what is left to the next server.
const ESTATE: &str = "alerts";

/// The task and all that it owns.
pub(crate) struct AlertTask {
    pub(super) lifecycle: AlertState,
    pub(super) settling: Settling,
    pub(super) transitions: mpsc::Receiver<Transition>,
    /// Agents that the tracker has forgotten.
    pub(super) forgotten: mpsc::Receiver<Forgotten>,
    /// Set when a transition was dropped.
    pub(super) lost: Arc<AtomicBool>,
    pub(super) pauses: Pauses,
    pub(super) clock: Clock,
    pub(super) metrics: AlertMetrics,
    pub(super) acks: Option<mpsc::Receiver<AckRequest>>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) board: watch::Sender<Arc<AlertSnapshot>>,
    pub(super) sent: SentAlerts,
    pub(super) notifier: Notifier,
    pub(super) senders: Senders,
    /// Other receivers.
    pub(super) changes: mpsc::Receiver<Targets>,
    pub(super) stop: CancellationToken,
    pub(super) sweeping: Sweeping,
    pub(super) saving: Saving,
    pub(super) estate: Estate,
}

/// The sweep over the tracker, and the query that is pending.
pub(super) struct Sweeping {
    queries: mpsc::Sender<Query>,
    /// The start of the next sweep, if none is under way.
    next_at: Instant,
    asked: Option<Pin<Box<dyn Future<Output = Option<Alarms>> + Send>>>,
}

impl Sweeping {
    pub(super) fn new(queries: mpsc::Sender<Query>) -> Self {
        Sweeping { queries, next_at: Instant::now(), asked: None }
    }

    fn ask(&mut self, from: usize) {
        let queries = self.queries.clone();
        self.asked = Some(Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            queries.send(Query::Alarms { from, answer }).await.ok()?;
            answered.await.ok()
        }));
    }
}

/// The next request; pends for ever without a queue of them.
async fn next_request(requests: &mut Option<mpsc::Receiver<AckRequest>>) -> Option<AckRequest> {
    match requests {
        Some(requests) => requests.recv().await,
        None => pending().await,
    }
}

/// Awaits a future that may be absent; then pends for ever.
async fn if_any<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

impl AlertTask {
    /// Runs until the tracker has ended, then until all notifications are sent, for two seconds at most.
    ///
    /// # Errors
    ///
    /// A sending task ended by itself.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        self.restore().await;
        let mut look_at_pauses = Instant::now();
        loop {
            self.settle();
            let heeds_pauses = self.lifecycle.heeds_pauses();
            if heeds_pauses && look_at_pauses <= Instant::now() {
                look_at_pauses = Instant::now() + LOOK_AT_PAUSES_EVERY;
                let wall = wall_now();
                let now = self.now();
                if self.lifecycle.handle_pauses(|name| self.pauses.is_paused(name, wall), now) {
                    // Who is still in alarm is found by a sweep, as after a loss.
                    self.lost.store(true, Ordering::Relaxed);
                }
                self.settle();
            }
            let wake_at = self.wake_at().min(if heeds_pauses { look_at_pauses } else { self.wake_at() });
            tokio::select! {
                biased;
                transition = self.transitions.recv() => match transition {
                    Some(transition) => {
                        self.take(transition);
                        self.take_waiting(TURN);
                    }
                    None => break,
                },
                Some(forgotten) = self.forgotten.recv() => self.forget(&forgotten),
                Some(request) = next_request(&mut self.acks) => self.serve(request),
                Some(report) = self.reports.recv() => self.note(report),
                alarms = if_any(&mut self.sweeping.asked) => self.sweep_on(alarms),
                written = if_any(&mut self.saving.writing) => {
                    self.saving.writing = None;
                    self.saving.finish(written);
                }
                Some(targets) = self.changes.recv() => self.change(targets),
                ended = self.senders.next_end() => ended?,
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
        self.finish().await;
        Ok(())
    }

    /// Restores the alerts of the server's previous run, or of the server before this one.
    async fn restore(&mut self) {
        let left = self.estate.take(ESTATE);
        let KeptAlerts { alerts, acks } = match (&self.saving.file, left) {
            (Some((file, _)), _) => {
                let file = file.clone();
                // What panicked has said so.
                spawn_blocking(move || file.read()).await.unwrap_or_default()
            }
            (None, Some(left)) => KeptAlerts::from_bytes(&left),
            (None, None) => return,
        };
        let (known, now) = (alerts.len(), self.now());
        let senseless = self.lifecycle.restore_acks(acks) + self.lifecycle.restore(alerts, now);
        if senseless > 0 {
            tracing::warn!(
                target: "varta::alerts",
                senseless,
                "{senseless} alerts or acknowledgements from before this server's start make no sense and are passed over"
            );
        }
        if known > 0 {
            tracing::info!(
                target: "varta::alerts",
                known,
                "{known} alerts are known from before this server's start"
            );
        }
    }

    /// Handles what is due, and passes on the output of the alert state.
    fn settle(&mut self) {
        while let Some(settled) = self.settling.poll(self.clock.now()) {
            self.handle(&settled);
        }
        let now = self.now();
        self.lifecycle.handle_timeout(now);
        while let Some(delivery) = self.lifecycle.poll_delivery() {
            self.notifier.put(delivery);
        }
        if let Some(agents) = self.lifecycle.poll_acks() {
            self.notifier.acknowledge(agents);
        }
        self.notifier.count_acknowledged(self.lifecycle.take_unsent());
        self.metrics.alertmanager.given_up.increment(self.lifecycle.take_untold());
        if let Some(board) = self.lifecycle.poll_board() {
            self.metrics.firing.set(board.firing.len() as f64);
            let board = Arc::new(board);
            self.board.send_replace(Arc::clone(&board));
            self.sent.keep_to(&board);
            self.saving.is_due = true;
        }
        if self.saving.next_at().is_some_and(|at| at <= Instant::now()) {
            self.saving.begin(&self.lifecycle, now);
        }
        if self.lost.load(Ordering::Relaxed) {
            self.sweeping.next_at = self.sweeping.next_at.min(Instant::now() + SWEEP_AGAIN);
        }
        if self.sweeping.asked.is_none() && self.sweeping.next_at <= Instant::now() {
            // The new sweep covers transitions that are lost from now on.
            self.lost.store(false, Ordering::Relaxed);
            self.lifecycle.begin_sweep();
            self.sweeping.next_at = Instant::now() + SWEEP_EVERY;
            self.sweeping.ask(0);
        }
    }

    /// The time of the next work that no event announces.
    fn wake_at(&self) -> Instant {
        let sweep_at = self.sweeping.asked.is_none().then_some(self.sweeping.next_at);
        let timeout = self.lifecycle.poll_timeout().map(|at| self.clock.instant(at));
        let save_at = self.saving.next_at();
        let settled_at = self.settling.next_at().map(|at| self.clock.instant(at));
        let at = [sweep_at, timeout, save_at, settled_at].into_iter().flatten().min();
        at.unwrap_or_else(|| Instant::now() + SWEEP_EVERY)
    }

    /// Handles a transition, unless it has to settle first.
    fn take(&mut self, transition: Transition) {
        if let Some(transition) = self.settling.take(transition, self.clock.now()) {
            self.handle(&transition);
        }
    }

    /// Handles an agent that the tracker has forgotten, after its transitions.
    fn forget(&mut self, forgotten: &Forgotten) {
        self.take_waiting(self.transitions.len());
        self.settling.forget(&forgotten.agent);
        let now = self.now();
        self.lifecycle.handle_forgotten(forgotten, now);
    }

    /// Carries out a request to acknowledge alarms, after the transitions from before the tracker's answer.
    fn serve(&mut self, AckRequest { action, answer }: AckRequest) {
        self.take_waiting(self.transitions.len());
        let mut outcome = AckOutcome::default();
        match action {
            AckAction::Acknowledge { found, by } => {
                for found in found {
                    match self.lifecycle.acknowledge(&found, &by) {
                        Acknowledged::Done => outcome.agents.push(found.agent),
                        Acknowledged::NotInAlarm => {}
                        Acknowledged::Full => outcome.is_full = true,
                    }
                }
            }
            AckAction::TakeBack(who) => outcome.agents = self.lifecycle.take_back(&who),
            AckAction::List => outcome.agents = self.lifecycle.acknowledged(),
        }
        // Nobody waits for it when the client has gone.
        let _ = answer.send(outcome);
    }

    fn handle(&mut self, transition: &Transition) {
        let is_paused = transition.to.is_alarm() && self.is_paused(transition);
        let now = self.now();
        self.lifecycle.handle_transition(transition, is_paused, now);
    }

    /// Handles queued transitions, at most `most`.
    fn take_waiting(&mut self, most: usize) {
        for _ in 0..most {
            let Ok(transition) = self.transitions.try_recv() else { return };
            self.take(transition);
        }
    }

    /// Handles one part of a sweep, and requests the next one.
    fn sweep_on(&mut self, alarms: Option<Alarms>) {
        self.sweeping.asked = None;
        let Some(Alarms { found, awaited, next }) = alarms else {
            // The tracker has ended; the queue of transitions closes next.
            return;
        };
        // Transitions from before the tracker's answer come first.
        self.take_waiting(self.transitions.len());
        let now = self.now();
        for found in &found {
            let is_paused = self.is_paused(found);
            self.lifecycle.handle_found(found, is_paused, now);
        }
        for name in &awaited {
            self.lifecycle.handle_awaited(name);
        }
        match next {
            Some(next) => self.sweeping.ask(next),
            None => {
                let is_whole = self.lifecycle.end_sweep(now);
                let pause = if is_whole { SWEEP_EVERY } else { SWEEP_AGAIN };
                self.sweeping.next_at = Instant::now() + pause;
            }
        }
    }

    /// Tells other receivers from now on. What fires is told to those that are new.
    fn change(&mut self, targets: Targets) {
        // What was said before goes to those that there were.
        self.settle();
        let (now, had_notices) = (self.now(), self.notifier.is_on());
        let damping = targets.damping;
        let Changed { receivers, new } = self.senders.change(targets);
        let untold = self.lifecycle.handle_receivers(receivers, damping, now);
        if untold > 0 {
            tracing::warn!(
                target: "varta::alerts",
                untold,
                "Alertmanagers that get no more alerts are not told of {untold} ends; there an alert ends three resends \
                 after the last"
            );
        }
        if !new.is_empty() {
            for delivery in self.lifecycle.notices_of_firing(!had_notices, now) {
                self.notifier.put_to(&new, delivery);
            }
        }
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Ended { alertmanager, id } => self.lifecycle.handle_ended(id, alertmanager),
            Report::Said(id) => self.lifecycle.handle_said(id),
            Report::SaidEnded(id) => self.lifecycle.handle_said_ended(id),
        }
    }

    /// Sends what is pending within a time limit, and persists the state. Firing alerts are not ended by it.
    async fn finish(&mut self) {
        while let Ok(forgotten) = self.forgotten.try_recv() {
            self.forget(&forgotten);
        }
        self.settle();
        self.stop.cancel();
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            let step = async {
                tokio::select! {
                    biased;
                    Some(report) = self.reports.recv() => Some(report),
                    joined = self.senders.join_next() => { let _ = joined?; None }
                    else => None,
                }
            };
            match timeout_at(deadline, step).await {
                Ok(Some(report)) => self.note(report),
                Ok(None) if self.senders.are_none() => break,
                Ok(None) => {}
                Err(_) => {
                    tracing::warn!(
                        target: "varta::alerts",
                        "not all alerts could be sent within {STOP_WITHIN:?}"
                    );
                    break;
                }
            }
        }
        while let Ok(report) = self.reports.try_recv() {
            self.note(report);
        }
        if let Some(writing) = self.saving.writing.take() {
            self.saving.finish(writing.await);
        }
        self.settle_last().await;
    }

    /// Writes the file for the last time; without one, leaves it to the next server.
    async fn settle_last(&mut self) {
        if self.saving.file.is_none() {
            let kept =
                KeptAlerts { alerts: self.lifecycle.kept(self.now()), acks: self.lifecycle.kept_acks() };
            if let Ok(kept) = kept.to_bytes() {
                self.estate.leave(ESTATE, kept);
            }
            return;
        }
        // This snapshot is not sent any more, only persisted.
        self.saving.is_due |= self.lifecycle.poll_board().is_some();
        if self.saving.next_at().is_none() {
            return;
        }
        let now = self.now();
        self.saving.begin(&self.lifecycle, now);
        if let Some(writing) = self.saving.writing.take() {
            self.saving.finish(writing.await);
        }
    }

    fn is_paused(&self, transition: &Transition) -> bool {
        self.pauses.is_paused(&transition.agent.name, wall_now())
    }

    fn now(&self) -> WallClock {
        WallClock::read(self.clock)
    }
}
