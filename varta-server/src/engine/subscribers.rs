//! The subscribers of transitions: the state database and the queue of each service.

use crate::domain::beat::Transport;
use crate::domain::tracker::{Forgotten, Transition};
use crate::engine::feed::Feed;
use crate::engine::state_queue::StateSink;

/// The queues to which transitions are dispatched.
#[derive(Debug)]
pub(crate) struct Subscribers {
    pub(crate) feeds: Vec<Feed>,
    /// The state database, with `--state-dir`.
    pub(crate) state: Option<StateSink>,
}

impl Subscribers {
    /// Dispatches a transition to all queues. Status reports and agents in plaintext, which can occur at any
    /// rate, may fill only half of a queue, so that transitions to stalled or down still fit.
    pub(super) fn dispatch(&self, transition: &Transition) {
        let is_cheap = transition.is_report() || transition.agent.origin.transport() == Transport::Udp;
        if let Some(state) = &self.state {
            state.transition(transition, is_cheap);
        }
        for feed in &self.feeds {
            feed.put(transition, is_cheap);
        }
    }

    /// Dispatches an agent that is forgotten, behind its transitions, to the queues of those that asked for it.
    pub(super) fn dispatch_forgotten(&self, forgotten: &Forgotten) {
        for feed in &self.feeds {
            feed.put_forgotten(forgotten);
        }
    }
}
