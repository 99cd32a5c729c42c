//! What a client may take of the HTTP server: a place among the connections until another needs it and this one
//! has asked for nothing, and time for as long as it goes on reading.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// The bounds of what clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most connections at once; more wait in the kernel's queue.
    pub(super) connections: usize,
    /// The most connections that may be at a scrape: the others are left for `/healthz` and `/readyz`.
    pub(super) scraping: usize,
    /// The most scrapes at once: each may hold the series of many agents in memory.
    pub(super) scrapes: usize,
    /// The longest time for a client to send the head of a request.
    pub(super) head_within: Duration,
    /// The longest time in which a client takes nothing of its response.
    pub(super) stalled_within: Duration,
    /// The same while another client waits for the place of a scrape.
    pub(super) stalled_within_if_wanted: Duration,
}

impl Limits {
    pub(super) const DEFAULT: Limits = Limits {
        connections: 64,
        scraping: 32,
        scrapes: 4,
        head_within: Duration::from_secs(5),
        stalled_within: Duration::from_secs(10),
        stalled_within_if_wanted: Duration::from_secs(1),
    };

    /// The limits where at most so many connections find descriptors: half of them may be at a scrape.
    pub(super) fn of(connections: usize) -> Limits {
        let connections = connections.min(Limits::DEFAULT.connections);
        let scraping = connections.div_ceil(2);
        let scrapes = Limits::DEFAULT.scrapes.min(scraping);
        Limits { connections, scraping, scrapes, ..Limits::DEFAULT }
    }
}

/// The places for scrapes.
#[derive(Clone, Debug)]
pub(super) struct ScrapePlaces {
    /// Of connections that wait for their rows or are read.
    scraping: Arc<Semaphore>,
    /// Of rows in memory.
    scrapes: Arc<Semaphore>,
    /// How many wait for one of those.
    waiting: Arc<AtomicUsize>,
}

/// The place of a scrape, until the client has read all of it: it bounds the memory, not the work.
#[derive(Debug)]
pub(super) struct ScrapePlace {
    _scraping: OwnedSemaphorePermit,
    _scrape: OwnedSemaphorePermit,
}

impl ScrapePlaces {
    pub(super) fn new(limits: &Limits) -> Self {
        ScrapePlaces {
            scraping: Arc::new(Semaphore::new(limits.scraping)),
            scrapes: Arc::new(Semaphore::new(limits.scrapes)),
            waiting: Arc::default(),
        }
    }

    /// A place for a scrape, as soon as there is one. `None` when too many others wait already.
    pub(super) async fn take(&self) -> Option<ScrapePlace> {
        let scraping = Arc::clone(&self.scraping).try_acquire_owned().ok()?;
        let _waiting = Waiting::new(&self.waiting);
        // The semaphore is never closed.
        let scrape = Arc::clone(&self.scrapes).acquire_owned().await.ok()?;
        Some(ScrapePlace { _scraping: scraping, _scrape: scrape })
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl ScrapePlace {
    /// The pieces of a response, which hold the place until the last of them has gone to the kernel.
    pub(super) fn hold_for(self, pieces: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
        let place = Arc::new(self);
        pieces.map(move |bytes| Bytes::from_owner(Piece { bytes, _place: Arc::clone(&place) }))
    }
}

struct Piece {
    bytes: Bytes,
    _place: Arc<ScrapePlace>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts itself for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose writes fail when the client takes nothing for too long. It may take what it takes as slowly as
/// it likes.
#[derive(Debug)]
pub(super) struct StallGuard<S> {
    stream: S,
    limits: Limits,
    places: ScrapePlaces,
    /// Set while a write waits for the client.
    stalled: Option<Stalled>,
}

#[derive(Debug)]
struct Stalled {
    since: Instant,
    next_look: Pin<Box<Sleep>>,
}

impl<S> StallGuard<S> {
    pub(super) fn new(stream: S, limits: Limits, places: ScrapePlaces) -> Self {
        StallGuard { stream, limits, places, stalled: None }
    }

    /// What a write says that waits for the client.
    fn wait(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<usize>> {
        let step = self.limits.stalled_within_if_wanted;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Stalled { since: Instant::now(), next_look: Box::pin(sleep(step)) });
        loop {
            ready!(stalled.next_look.as_mut().poll(context));
            let within = if self.places.is_wanted() { step } else { self.limits.stalled_within };
            if stalled.since.elapsed() >= within {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            stalled.next_look.as_mut().reset(Instant::now() + step);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Pending => this.wait(context),
            written => {
                this.stalled = None;
                written
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write_vectored(context, pieces) {
            Poll::Pending => this.wait(context),
            written => {
                this.stalled = None;
                written
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
