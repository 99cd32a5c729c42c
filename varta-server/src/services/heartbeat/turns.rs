//! The pace of heartbeats: one after a completed turn of the tracker in each interval.

use std::future::pending;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::engine::query::{Population, Query, population};

/// Waits for the turns after which heartbeats are due.
#[derive(Debug)]
pub(super) struct Turns {
    queries: mpsc::Sender<Query>,
    every: Duration,
    due: Instant,
}

impl Turns {
    /// For a heartbeat in each interval, the first at once.
    pub(super) fn new(queries: mpsc::Sender<Query>, every: Duration) -> Self {
        Turns { queries, every, due: Instant::now() }
    }

    /// Waits for the next one, and gives the agents by verdict. A tracker that takes no turns gives no answer, and
    /// one that has ended none ever: the server follows it.
    pub(super) async fn next(&mut self) -> Population {
        sleep_until(self.due).await;
        match population(&self.queries).await {
            Some(population) => {
                self.due = Instant::now() + self.every;
                population
            }
            None => pending().await,
        }
    }
}
