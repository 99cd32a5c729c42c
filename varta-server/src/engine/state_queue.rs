//! The queue from the engine to the writer of the state database. The engine never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::domain::beat::Transport;
use crate::domain::tracker::{AgentSnapshot, JobSnapshot, RegistryChange, Transition};
use crate::engine::feed::BoundedQueue;
use crate::ingest::PersistedWindow;

/// The capacity. Each transition takes two places: one for the history and one for the registry.
pub(crate) const STATE_QUEUE: usize = 65_536;

/// A change to write.
#[derive(Debug)]
pub(crate) enum Event {
    /// For the history.
    Transition(Box<Transition>),
    /// For the registry.
    RegistryChange(RegistryChange),
    /// A part of all agents, for the registry.
    Slice(Slice),
    /// Replay windows.
    Seals(Vec<PersistedWindow>),
    /// The slices before are all agents as they were when the server stopped.
    Complete,
}

/// Snapshots of the agents in a range of slots.
#[derive(Debug)]
pub(crate) struct Slice {
    /// The first slot; 0 begins a sweep through all of them.
    pub(crate) from: usize,
    /// All jobs, in the first slice.
    pub(crate) jobs: Vec<JobSnapshot>,
    /// The snapshots.
    pub(crate) agents: Vec<AgentSnapshot>,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The sending end of the queue.
#[derive(Debug)]
pub(crate) struct StateSink {
    pub(crate) queue: BoundedQueue<Event>,
    /// Whether a registry change was dropped since the last sweep began.
    pub(crate) lost: Arc<AtomicBool>,
}

impl StateSink {
    /// Queues a transition; a cheap one only while half of the queue is free.
    pub(crate) fn transition(&self, transition: &Transition, is_cheap: bool) {
        self.queue.put(is_cheap, || Event::Transition(Box::new(transition.clone())));
    }

    /// Queues a registry change; that of an agent in plaintext only while half of the queue is free.
    pub(crate) fn note(&self, note: RegistryChange) {
        let agent = match &note {
            RegistryChange::Known(known) => Some(&known.agent),
            RegistryChange::Forgotten(forgotten) => Some(&forgotten.agent),
            RegistryChange::Job(_) | RegistryChange::JobForgotten(_) => None,
        };
        let is_cheap = agent.is_some_and(|agent| agent.origin.transport() == Transport::Udp);
        if !self.queue.put(is_cheap, || Event::RegistryChange(note)) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}
