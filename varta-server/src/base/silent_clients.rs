//! Clients that are connected and say nothing: the longest silent makes room for the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The clients that are connected and have asked for nothing: each can be disconnected for another.
#[derive(Clone, Debug, Default)]
pub(crate) struct SilentClients(Arc<Mutex<Silent>>);

#[derive(Debug, Default)]
struct Silent {
    next: u64,
    /// By the order in which they came.
    clients: BTreeMap<u64, CancellationToken>,
}

impl SilentClients {
    /// A client that has just connected.
    pub(crate) fn enter(&self) -> Client {
        let evicted = CancellationToken::new();
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = silent.next;
        silent.next += 1;
        silent.clients.insert(number, evicted.clone());
        Client { number, evicted, all: self.clone() }
    }

    /// Disconnects the client that has been silent for the longest time, if there is one.
    pub(crate) fn evict_oldest(&self) {
        let oldest = self.0.lock().unwrap_or_else(PoisonError::into_inner).clients.pop_first();
        if let Some((_, evicted)) = oldest {
            evicted.cancel();
        }
    }

    fn leave(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clients.remove(&number);
    }
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    number: u64,
    evicted: CancellationToken,
    all: SilentClients,
}

impl Client {
    /// Notes that it has sent a request, so that no other takes its place.
    pub(crate) fn has_asked(&self) {
        self.all.leave(self.number);
    }

    /// Resolves when another is to have its place.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.all.leave(self.number);
    }
}
