//! What a client may take of the HTTP server: a place among the connections until another needs it, and time for as
//! long as it goes on reading.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::services::http::readers::{Progress, Reader};

/// The bounds of what clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most connections at once. The next has the place of one that says nothing or reads slowly.
    pub(super) connections: usize,
    /// The most bodies of scrapes in memory: each may hold the series of many agents.
    pub(super) scrapes: usize,
    /// The longest time for a client to send the head of a request.
    pub(super) head_within: Duration,
    /// The longest time in which a client takes nothing of its response.
    pub(super) stalled_within: Duration,
}

impl Limits {
    pub(super) const DEFAULT: Limits = Limits {
        connections: 320,
        scrapes: 4,
        head_within: Duration::from_secs(5),
        stalled_within: Duration::from_secs(10),
    };

    /// The limits where at most so many connections find descriptors.
    pub(super) fn of(connections: usize) -> Limits {
        Limits { connections: connections.min(Limits::DEFAULT.connections), ..Limits::DEFAULT }
    }
}

/// A stream whose writes fail when the client takes nothing for too long, and are known to `readers`.
#[derive(Debug)]
pub(super) struct StallGuard<S> {
    stream: S,
    within: Duration,
    reader: Arc<Reader>,
    progress: Option<Progress>,
    /// Set while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> StallGuard<S> {
    pub(super) fn new(stream: S, within: Duration, reader: Arc<Reader>) -> Self {
        StallGuard { stream, within, reader, progress: None, stalled: None }
    }

    /// What a write says, after the stream has said this.
    fn guard(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.stalled = None;
            if let Ok(length) = written {
                self.reader.record(&mut self.progress, Some(length));
            }
            return Poll::Ready(written);
        }
        self.reader.record(&mut self.progress, None);
        let within = self.within;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(stalled.as_mut().poll(context));
        self.reader.has_stalled();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.guard(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.guard(written, context)
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
