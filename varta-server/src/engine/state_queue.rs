use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::domain::beat::Transport;
use crate::domain::tracker::{Note, Remembered, Transition};
use crate::engine::feed::BoundedQueue;
use crate::ingest::Seal;

/// Changes that may wait to be written. Each change of verdict is two of them: one for either table.
pub(crate) const STATE_QUEUE: usize = 65_536;

/// What there is to be written.
#[derive(Debug)]
pub(crate) enum Event {
    /// For the history.
    Transition(Box<Transition>),
    /// For the registry.
    Note(Note),
    /// For the registry too.
    Slice(Slice),
    /// Sessions of the replay table.
    Seals(Vec<Seal>),
}

/// A part of all agents, as they are.
#[derive(Debug)]
pub(crate) struct Slice {
    /// The slot number of the first; 0 begins a sweep through all of them.
    pub(crate) from: usize,
    /// The agents.
    pub(crate) agents: Vec<Remembered>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct StateSink {
    pub(crate) queue: BoundedQueue<Event>,
    /// Whether the registry has missed something since its last sweep began.
    pub(crate) lost: Arc<AtomicBool>,
}

impl StateSink {
    /// Hands on a change of verdict; a cheap one only while half of the queue is free.
    pub(crate) fn transition(&self, transition: &Transition, is_cheap: bool) {
        self.queue.put(is_cheap, || Event::Transition(Box::new(transition.clone())));
    }

    /// Hands on what has changed of what is to be remembered.
    pub(crate) fn note(&self, note: Note) {
        let agent = match &note {
            Note::Known(known) => &known.agent,
            Note::Forgotten(agent) => agent,
        };
        let is_cheap = agent.origin.transport() == Transport::Udp;
        if !self.queue.put(is_cheap, || Event::Note(note)) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}
