//! Clients that are connected and say nothing: the longest silent makes room for the next.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::base::accept::MakeRoom;

/// The clients that are connected and have asked for nothing: each can be disconnected for another.
#[derive(Clone, Debug, Default)]
pub(crate) struct SilentClients(Arc<Mutex<Silent>>);

#[derive(Debug, Default)]
struct Silent {
    next: u64,
    /// By the order in which they came.
    clients: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    evicted: CancellationToken,
    gone: CancellationToken,
}

impl SilentClients {
    /// A client that has just connected.
    pub(crate) fn enter(&self) -> Client {
        let [evicted, gone] = [(); 2].map(|()| CancellationToken::new());
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = silent.next;
        silent.next += 1;
        silent
            .clients
            .insert(number, Entry { since: Instant::now(), evicted: evicted.clone(), gone: gone.clone() });
        Client { number, evicted, _gone: gone.drop_guard(), all: self.clone() }
    }

    /// Disconnects the client that has been silent for the longest time, if for this long, and waits until it is gone.
    /// Whether there was one. A client whose request has arrived is not silent.
    pub(crate) async fn evict_oldest(&self, least: Duration) -> bool {
        // Who has just come is read first.
        yield_now().await;
        let oldest = {
            let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = silent.clients.first_entry().filter(|oldest| oldest.get().since.elapsed() >= least);
            oldest.map(OccupiedEntry::remove)
        };
        let Some(Entry { evicted, gone, .. }) = oldest else { return false };
        evicted.cancel();
        gone.cancelled().await;
        true
    }

    fn leave(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clients.remove(&number);
    }
}

impl MakeRoom for SilentClients {
    async fn make_room(&self) {
        if !self.evict_oldest(Duration::ZERO).await {
            pending::<()>().await;
        }
    }
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    number: u64,
    evicted: CancellationToken,
    _gone: DropGuard,
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
