use crate::domain::beat::Transport;
use crate::domain::tracker::Transition;
use crate::engine::feed::Feed;
use crate::engine::state_queue::StateSink;

/// Where changes of verdict go.
#[derive(Debug)]
pub(crate) struct Sinks {
    pub(crate) feeds: Vec<Feed>,
    /// With `--state-dir`.
    pub(crate) state: Option<StateSink>,
}

impl Sinks {
    /// What agents can bring about as often as they like, and agents that anybody can make up, cannot take the places of
    /// those that fell silent.
    pub(super) fn hand_on(&self, transition: &Transition) {
        let is_cheap = transition.is_report() || transition.agent.origin.transport() == Transport::Udp;
        if let Some(state) = &self.state {
            state.transition(transition, is_cheap);
        }
        for feed in &self.feeds {
            feed.put(transition, is_cheap);
        }
    }
}
