//! The handle by which notifications reach the receivers that get each one once, for this service and others.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::base::clock::wall_now;
use crate::base::time::WallTime;
use crate::domain::agent_key::AgentKey;
use crate::services::alerts::courier::Waiting;
use crate::services::alerts::delivery::Notice;
use crate::services::alerts::metrics::Outcomes;
use crate::services::alerts::notification::{self, Delivery, Notification};

/// Sends notifications to the webhook and by mail. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(pub(super) Arc<NoticeQueues>);

/// The queues to the tasks of all receivers.
pub(super) struct NoticeQueues {
    queues: RwLock<Vec<NoticeQueue>>,
    host: String,
    said: AtomicU64,
    /// The agents whose alarms are acknowledged.
    acknowledged: RwLock<HashSet<AgentKey>>,
}

/// The queue to the task of one receiver.
pub(super) struct NoticeQueue {
    /// Such as `webhook`.
    pub(super) destination: &'static str,
    pub(super) queue: mpsc::Sender<Waiting>,
    pub(super) outcomes: Outcomes,
}

impl Notifier {
    /// A notifier without receivers, which drops everything.
    pub(super) fn new(host: String) -> Self {
        let (queues, acknowledged) = (RwLock::default(), RwLock::default());
        Notifier(Arc::new(NoticeQueues { queues, host, said: AtomicU64::new(0), acknowledged }))
    }

    /// Adds a receiver.
    pub(super) fn add(&self, queue: NoticeQueue) {
        self.0.queues.write().unwrap_or_else(PoisonError::into_inner).push(queue);
    }

    /// Takes a receiver away.
    pub(super) fn remove(&self, destination: &str) {
        let mut queues = self.0.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.destination != destination);
    }

    /// Whether there is a receiver.
    pub(super) fn is_on(&self) -> bool {
        !self.queues().is_empty()
    }

    fn queues(&self) -> RwLockReadGuard<'_, Vec<NoticeQueue>> {
        self.0.queues.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the notification of a recovery action, unless the alarm of its agent is acknowledged. A full queue
    /// drops it and counts it as given up. Does nothing without a receiver.
    pub(crate) fn send(&self, notice: &Notification) {
        if !self.is_on() {
            return;
        }
        let acknowledged = self.0.acknowledged.read().unwrap_or_else(PoisonError::into_inner);
        if acknowledged.contains(&AgentKey::of(&notice.agent)) {
            return self.count_acknowledged(1);
        }
        let number = self.0.said.fetch_add(1, Ordering::Relaxed);
        let now = WallTime::from(wall_now());
        let id = notification::unique_id(&self.0.host, number, now);
        self.put(Delivery::of_recovery(notice, &self.0.host, id, now));
    }

    /// Replaces the agents whose alarms are acknowledged.
    pub(super) fn acknowledge(&self, agents: HashSet<AgentKey>) {
        *self.0.acknowledged.write().unwrap_or_else(PoisonError::into_inner) = agents;
    }

    /// Counts notifications that are not sent because of acknowledgements.
    pub(super) fn count_acknowledged(&self, count: u64) {
        for queue in &*self.queues() {
            queue.outcomes.acknowledged.increment(count);
        }
    }

    /// Sends a notification to all receivers.
    pub(super) fn put(&self, delivery: Delivery) {
        self.put_for(delivery, |_| true);
    }

    /// Sends a notification to these receivers only.
    pub(super) fn put_to(&self, destinations: &[&'static str], delivery: Delivery) {
        self.put_for(delivery, |destination| destinations.contains(&destination));
    }

    fn put_for(&self, delivery: Delivery, is_meant: impl Fn(&'static str) -> bool) {
        let queues = self.queues();
        let meant: Vec<_> = queues.iter().filter(|queue| is_meant(queue.destination)).collect();
        let notice = Arc::new(Notice::new(delivery, meant.len()));
        for NoticeQueue { destination, queue, outcomes } in meant {
            match queue.try_send((Instant::now(), Arc::clone(&notice))) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                    outcomes.given_up.increment(1);
                    let (id, kind) = (&notice.delivery.id, notice.delivery.kind.as_str());
                    tracing::warn!(
                        target: "varta::alerts",
                        %id,
                        kind,
                        destination,
                        "a notice ({kind}) is not sent: too many wait for the {destination}, or the server ends"
                    );
                }
            }
        }
    }
}

impl std::fmt::Debug for NoticeQueues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NoticeQueues").finish_non_exhaustive()
    }
}
