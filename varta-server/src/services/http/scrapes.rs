//! The bodies of scrapes: each is made once for all clients that wait for one.
//!
//! A client gets a body whose making began after it asked. So a crowd that asks together costs one body, and a
//! bounded number of bodies is in memory, however many clients have not read theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::base::accept;
use crate::metrics::agent_rows::AgentMetrics;
use crate::services::http::negotiation::Format;
use crate::services::http::readers::Readers;

/// What a body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) format: Format,
    pub(super) is_compressed: bool,
    /// The agents with rows.
    pub(super) agents: AgentMetrics,
}

/// A body in pieces. It takes its place until all of its readers have gone.
pub(super) type Body = Arc<[Bytes]>;

/// The bodies that are made, and the places of those that are.
#[derive(Debug)]
pub(super) struct Scrapes {
    /// Of bodies in memory.
    places: Arc<Semaphore>,
    /// One at a time, so that all who come meanwhile share the next.
    making: Semaphore,
    /// For whom another body is not begun yet, by its kind.
    waiting: Mutex<HashMap<Kind, watch::Receiver<Option<Body>>>>,
    readers: Readers,
}

impl Scrapes {
    /// Room for so many bodies, for which `readers` are cut off that are slow.
    pub(super) fn new(places: usize, readers: Readers) -> Self {
        Scrapes {
            places: Arc::new(Semaphore::new(places)),
            making: Semaphore::new(1),
            waiting: Mutex::default(),
            readers,
        }
    }

    /// A body of this kind, which `make` makes if nobody waits for one already. `None` when it makes none.
    pub(super) async fn get<M>(self: &Arc<Self>, kind: Kind, make: impl FnOnce() -> M) -> Option<Body>
    where
        M: Future<Output = Option<Vec<Bytes>>> + Send + 'static,
    {
        let mut body = self.join(kind, make);
        body.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn join<M>(self: &Arc<Self>, kind: Kind, make: impl FnOnce() -> M) -> watch::Receiver<Option<Body>>
    where
        M: Future<Output = Option<Vec<Bytes>>> + Send + 'static,
    {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = waiting.get(&kind) {
            return body.clone();
        }
        let (give, body) = watch::channel(None);
        waiting.insert(kind, body.clone());
        let (scrapes, made) = (Arc::clone(self), make());
        // On a task of its own: whoever has asked first may go away, and the others wait on.
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_turn) = scrapes.making.acquire().await else { return };
            let place = accept::take(&scrapes.places, &scrapes.readers).await;
            scrapes.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&kind);
            if give.receiver_count() == 0 {
                return;
            }
            if let Some(pieces) = made.await {
                give.send_replace(Some(hold(place, pieces)));
            }
        });
        body
    }
}

/// The pieces with the place, which they hold until the last of them has gone to the kernel for every reader.
fn hold(place: OwnedSemaphorePermit, pieces: Vec<Bytes>) -> Body {
    let place = Arc::new(place);
    pieces.into_iter().map(|bytes| Bytes::from_owner(Piece { bytes, _place: Arc::clone(&place) })).collect()
}

struct Piece {
    bytes: Bytes,
    _place: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
