//! Slices of a look at all agents for what may become trouble.

use tokio::sync::{mpsc, oneshot};

use crate::domain::tracker::Review;
use crate::engine::query::{Query, ReviewSlice};
use crate::engine::task::TrackerActor;

/// The most agents that are looked at before beats are processed again.
const LOOKS_PER_TURN: usize = 4_096;

impl TrackerActor {
    /// Adds what is to be told of some agents, from slot `from` on.
    pub(super) fn review(&self, mut review: Box<Review>, from: usize) -> ReviewSlice {
        let end = from.saturating_add(LOOKS_PER_TURN);
        self.tracker.review(from..end, &mut review);
        ReviewSlice { review, next: (end < self.tracker.slots()).then_some(end) }
    }
}

/// What is to be told of all agents; `None` when the engine has ended.
pub(crate) async fn review(queries: &mpsc::Sender<Query>) -> Option<Review> {
    let (mut review, mut next) = (Box::<Review>::default(), Some(0));
    while let Some(from) = next {
        let (answer, answered) = oneshot::channel();
        queries.send(Query::Review { review, from, answer }).await.ok()?;
        let slice = answered.await.ok()?;
        (review, next) = (slice.review, slice.next);
    }
    Some(*review)
}
