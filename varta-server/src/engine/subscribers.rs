//! The subscribers of transitions: the state database and the queue of each service.

use crate::domain::beat::Transport;
use crate::domain::tracker::{Forgotten, Transition};
use crate::engine::feed::Feed;
use crate::engine::state_queue::StateSink;

/// The most changes that are held for subscribers that are not there yet: as many as the queue of each takes.
const MAX_HELD: usize = 65_536;

/// The queues to which transitions are dispatched.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    feeds: Vec<Feed>,
    /// The state database, with `--state-dir`.
    pub(super) state: Option<StateSink>,
    /// What waits for the subscribers, which come later; `None` when they are there.
    held: Option<Held>,
}

#[derive(Debug, Default)]
struct Held {
    changes: Vec<Change>,
    /// Those that found no room.
    missed: u64,
}

#[derive(Debug)]
enum Change {
    Transition(Box<Transition>),
    Forgotten(Box<Forgotten>),
}

impl Held {
    fn put(&mut self, change: impl FnOnce() -> Change) {
        if self.changes.len() < MAX_HELD {
            self.changes.push(change());
        } else {
            self.missed += 1;
        }
    }
}

impl Subscribers {
    pub(crate) fn new(feeds: Vec<Feed>, state: Option<StateSink>) -> Self {
        Subscribers { feeds, state, held: None }
    }

    /// Subscribers that come later: what is dispatched waits for them.
    pub(crate) fn that_come_later() -> Self {
        Subscribers { held: Some(Held::default()), ..Subscribers::default() }
    }

    /// Dispatches what has waited for these.
    pub(super) fn attach(&mut self, subscribers: Subscribers) {
        let held = self.held.take().unwrap_or_default();
        *self = subscribers;
        for change in held.changes {
            match change {
                Change::Transition(transition) => self.dispatch(&transition),
                Change::Forgotten(forgotten) => self.dispatch_forgotten(&forgotten),
            }
        }
        if held.missed > 0 {
            for feed in &self.feeds {
                feed.miss(held.missed);
            }
        }
    }

    /// Dispatches a transition to all queues. Status reports and agents in plaintext, which can occur at any
    /// rate, may fill only half of a queue, so that transitions to stalled or down still fit.
    pub(super) fn dispatch(&mut self, transition: &Transition) {
        if let Some(held) = &mut self.held {
            return held.put(|| Change::Transition(Box::new(transition.clone())));
        }
        let is_cheap = transition.is_report() || transition.agent.origin.transport() == Transport::Udp;
        if let Some(state) = &self.state {
            state.transition(transition, is_cheap);
        }
        for feed in &self.feeds {
            feed.put(transition, is_cheap);
        }
    }

    /// Dispatches an agent that is forgotten, behind its transitions, to the queues of those that asked for it.
    pub(super) fn dispatch_forgotten(&mut self, forgotten: &Forgotten) {
        if let Some(held) = &mut self.held {
            return held.put(|| Change::Forgotten(Box::new(forgotten.clone())));
        }
        for feed in &self.feeds {
            feed.put_forgotten(forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MonoTime;
    use crate::metrics::Registry;

    #[test]
    fn what_happens_before_there_are_subscribers_reaches_them_in_order_as_far_as_there_was_room() {
        let registry = Registry::for_test();
        let (feed, mut transitions) = Feed::new(&registry, "test");
        let lost = feed.lost();
        let mut subscribers = Subscribers::that_come_later();
        let transition = |number: usize| Transition::of_missing(&number.to_string().into(), MonoTime::START);
        for number in 0..MAX_HELD + 2 {
            subscribers.dispatch(&transition(number));
        }
        subscribers.attach(Subscribers::new(vec![feed], None));
        assert_eq!(transitions.len(), MAX_HELD);
        for number in 0..MAX_HELD {
            assert_eq!(*transitions.try_recv().unwrap().agent.name, *number.to_string());
        }
        assert!(lost.load(std::sync::atomic::Ordering::Relaxed));
        let text = registry.handle().render();
        assert!(text.contains("varta_sink_dropped_total{sink=\"test\"} 2"), "{text}");
        subscribers.dispatch(&transition(7));
        assert_eq!(transitions.len(), 1);
    }
}
