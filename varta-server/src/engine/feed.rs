//! The way from the actor to a sink: a queue that nobody waits at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Counter;
use tokio::sync::mpsc;

use crate::domain::tracker::Transition;
use crate::engine::metrics::SINK_DROPPED;
use crate::metrics::Registry;

/// Changes that may wait for a sink: all of a host's workers may fall in one moment.
const QUEUE: usize = 65_536;

/// Hands changes of verdict to a sink. One that is too slow misses some, and that is counted under its name: the tracker
/// waits for nobody.
#[derive(Debug)]
pub(crate) struct Feed {
    queue: mpsc::Sender<Transition>,
    dropped: Counter,
    /// Whether it has missed any since it last asked.
    lost: Arc<AtomicBool>,
}

impl Feed {
    /// The two ends of the way to the sink of this name.
    pub(crate) fn new(registry: &Registry, sink: &'static str) -> (Self, mpsc::Receiver<Transition>) {
        let (queue, transitions) = mpsc::channel(QUEUE);
        let dropped = registry.counter(SINK_DROPPED, &[("sink", sink)]);
        (Feed { queue, dropped, lost: Arc::default() }, transitions)
    }

    /// Set when the sink has missed a change; the sink takes it back when it has made up for that.
    pub(crate) fn lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lost)
    }

    /// Hands on a change; a cheap one only while half of the queue is free.
    pub(crate) fn put(&self, transition: &Transition, is_cheap: bool) {
        let has_place = !is_cheap || self.queue.capacity() > self.queue.max_capacity() / 2;
        if !has_place || self.queue.try_send(transition.clone()).is_err() {
            self.dropped.increment(1);
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
        let transition = Transition::of_missing("agent".into(), MonoTime::START);
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
