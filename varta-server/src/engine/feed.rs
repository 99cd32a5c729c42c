//! The queues from the tracker's task to the services. Sending never waits, and cheap items leave room for
//! the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Counter;
use tokio::sync::mpsc;

use crate::domain::tracker::{Forgotten, Transition};
use crate::engine::metrics::SINK_DROPPED;
use crate::metrics::Registry;

/// The capacity in transitions: all workers of a host may fail in the same moment.
const QUEUE: usize = 65_536;

/// The sending end of a bounded queue; sending never waits. Cheap items, of which agents can cause any
/// number, leave half of its places to the others.
#[derive(Debug)]
pub(crate) struct BoundedQueue<T> {
    items: mpsc::Sender<T>,
    /// Items that did not fit.
    dropped: Counter,
}

impl<T> BoundedQueue<T> {
    /// The two ends of a queue with `capacity` places; what finds none is added to `dropped`.
    pub(crate) fn new(capacity: usize, dropped: Counter) -> (Self, mpsc::Receiver<T>) {
        let (items, receiver) = mpsc::channel(capacity);
        (BoundedQueue { items, dropped }, receiver)
    }

    /// Puts an item into the queue, a cheap one only while half of the queue is free. Whether there was a
    /// place; if not, that is counted, and the item is not even made where the queue has none for cheap ones.
    pub(crate) fn put(&self, is_cheap: bool, item: impl FnOnce() -> T) -> bool {
        let has_place = !is_cheap || self.items.capacity() > self.items.max_capacity() / 2;
        let is_taken = has_place && self.items.try_send(item()).is_ok();
        if !is_taken {
            self.dropped.increment(1);
        }
        is_taken
    }

    /// The queue itself, for one who may wait for a place.
    pub(crate) fn sender(&self) -> &mpsc::Sender<T> {
        &self.items
    }
}

/// The sending end of a subscriber's queue. Transitions that do not fit are dropped, and counted under the
/// subscriber's name.
#[derive(Debug)]
pub(crate) struct Feed {
    queue: BoundedQueue<Transition>,
    /// Of a subscriber to agents that are forgotten.
    forgotten: Option<BoundedQueue<Forgotten>>,
    /// Whether transitions were dropped since the subscriber last resynchronised.
    lost: Arc<AtomicBool>,
}

impl Feed {
    /// Makes both ends of the queue of the subscriber with this name.
    pub(crate) fn new(registry: &Registry, sink: &'static str) -> (Self, mpsc::Receiver<Transition>) {
        let dropped = registry.counter(SINK_DROPPED, &[("sink", sink)]);
        let (queue, transitions) = BoundedQueue::new(QUEUE, dropped);
        (Feed { queue, forgotten: None, lost: Arc::default() }, transitions)
    }

    /// Adds a queue of the agents that are forgotten, and returns its end.
    pub(crate) fn add_forgotten(&mut self) -> mpsc::Receiver<Forgotten> {
        let (queue, forgotten) = BoundedQueue::new(QUEUE, self.queue.dropped.clone());
        self.forgotten = Some(queue);
        forgotten
    }

    /// The flag that is set when a transition is dropped; the subscriber clears it once it has
    /// resynchronised.
    pub(crate) fn lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lost)
    }

    /// Queues a transition; a cheap one only while half of the queue is free.
    pub(crate) fn put(&self, transition: &Transition, is_cheap: bool) {
        if !self.queue.put(is_cheap, || transition.clone()) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Counts transitions that never got as far as the queue.
    pub(crate) fn miss(&self, number: u64) {
        self.queue.dropped.increment(number);
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Queues an agent that is forgotten, if the subscriber asked for it.
    pub(crate) fn put_forgotten(&self, forgotten: &Forgotten) {
        if let Some(queue) = &self.forgotten
            && !queue.put(false, || forgotten.clone())
        {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MonoTime;

    #[test]
    fn what_finds_no_place_is_counted_and_the_sink_can_see_that_it_missed_something() {
        let registry = Registry::for_test();
        let (feed, transitions) = Feed::new(&registry, "test");
        let transition = Transition::of_missing(&"agent".into(), MonoTime::START);
        for _ in 0..QUEUE / 2 {
            feed.put(&transition, true);
        }
        assert!(!feed.lost().load(Ordering::Relaxed));
        feed.put(&transition, true);
        assert!(feed.lost().swap(false, Ordering::Relaxed), "half of it is for what is not cheap");
        feed.put(&transition, false);
        assert!(!feed.lost().load(Ordering::Relaxed));
        assert_eq!(transitions.len(), QUEUE / 2 + 1);
        let text = registry.handle().render();
        assert!(text.contains("varta_sink_dropped_total{sink=\"test\"} 1"), "{text}");
    }
}
