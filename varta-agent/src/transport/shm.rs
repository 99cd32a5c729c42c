//! Beats without a system call: through a page of memory that a server on this host looks at.
//!
//! The page carries what is no news, the beats that say what the one before said. Everything else goes through the
//! Unix socket beside it, as it does without a page: so a full queue, a server that is gone, a panic and a goodbye are what
//! they are there, and who takes no pages loses nothing.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use varta_proto::control::{Attach, ControlKind, EncodedControl, MAX_CONTROL_LEN};
use varta_proto::page::Writer;
use varta_proto::{FRAME_LEN, Status};

use crate::entropy;
use crate::outcome::classify_send_error;
use crate::sys;
use crate::time::nanoseconds;
use crate::transport::page::Page;
use crate::transport::{BeatTransport, UdsTransport};

/// How long after a page was handed over another is, if nobody looks at it: the server may have had no room.
const REATTACH_AFTER: Duration = Duration::from_secs(60);
/// The same if it could not be handed over, because the queue was full.
const RETRY_ATTACH_AFTER: Duration = Duration::from_secs(1);

/// Where a frame says how its sender is.
const STATUS_OFFSET: usize = 3;
/// Where a control datagram says what it is.
const KIND_OFFSET: usize = 3;

/// Sends beats to a server on this host, most of them without a system call (feature `shm`, on Linux).
/// [`Varta::connect_shm`](crate::Varta::connect_shm) makes a handle with it, and says which beats go which way.
///
/// It goes by the timestamps of the frames: they are to be of a clock that runs as the host's does.
pub struct ShmTransport {
    /// The way for news.
    socket: UdsTransport,
    page: Option<Page>,
    writer: Writer,
    /// What the last datagram said, if beats that say the same may go through the page.
    page_status: Option<u8>,
    /// What makes a timestamp the host's time.
    clock_offset: u64,
    /// From when on another page is handed over if nobody looks at this one, by the host's time.
    attach_due: u64,
}

impl ShmTransport {
    /// Connects to the server that listens at `path`. The page is handed over with the first beat.
    ///
    /// # Errors
    ///
    /// As [`UdsTransport::connect`].
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        UdsTransport::connect(path).map(Self::with_socket)
    }

    pub(crate) const fn with_socket(socket: UdsTransport) -> Self {
        Self { socket, page: None, writer: Writer::new(), page_status: None, clock_offset: 0, attach_due: 0 }
    }

    /// Tells whether a server has promised to look at the page now.
    #[cfg(test)]
    fn is_read(&self) -> bool {
        let page = self.page.as_ref().and_then(Page::get);
        page.is_some_and(|page| page.is_read_at(sys::monotonic_nanos()))
    }

    /// Sends what is news, and has the server take it before what is written to the page from then on. Gives the host's
    /// time behind it.
    fn send_ordered(&mut self, datagram: &[u8]) -> (io::Result<usize>, u64) {
        self.page_status = None;
        let page = self.page.as_ref().and_then(Page::get);
        if let Some(page) = page {
            page.hold();
        }
        let sent = self.socket.send_datagram(datagram);
        let now = sys::monotonic_nanos();
        if let Some(page) = page {
            if sent.is_ok() {
                self.writer.empty(page);
            }
            page.release(now);
        }
        (sent, now)
    }

    #[inline(never)]
    fn send_by_datagram(&mut self, frame: &[u8; FRAME_LEN]) -> io::Result<usize> {
        let (sent, now) = self.send_ordered(frame);
        if sent.as_ref().is_ok_and(|taken| *taken == FRAME_LEN) {
            self.clock_offset = now.wrapping_sub(timestamp(frame));
            // What is critical is said again and again, each time for certain.
            self.page_status = Some(frame[STATUS_OFFSET]).filter(|status| *status != Status::Critical as u8);
            if now >= self.attach_due && !self.has_reader(now) {
                self.attach(frame, now);
            }
        }
        sent
    }

    /// Tells whether a server has the page: one that looks, or that was held up a short while ago.
    fn has_reader(&self, now: u64) -> bool {
        let page = self.page.as_ref().and_then(Page::get);
        page.is_some_and(|page| {
            page.is_read_at(now) || page.was_read_within(now, nanoseconds(REATTACH_AFTER))
        })
    }

    /// Hands over a new page behind a beat. What becomes of it concerns the page alone.
    #[cold]
    fn attach(&mut self, frame: &[u8; FRAME_LEN], now: u64) {
        let next_attempt = match self.try_attach(frame) {
            Ok(page) => {
                self.page = Some(page);
                self.writer = Writer::new();
                REATTACH_AFTER
            }
            Err(error) if classify_send_error(&error).is_dropped() => RETRY_ATTACH_AFTER,
            Err(_) => REATTACH_AFTER,
        };
        self.attach_due = now.saturating_add(nanoseconds(next_attempt));
    }

    fn try_attach(&self, frame: &[u8; FRAME_LEN]) -> io::Result<Page> {
        let (page, descriptor) = Page::create()?;
        let mut buffer = [0; MAX_CONTROL_LEN];
        let attach = Attach::new(pid(frame), timestamp(frame), nonce(frame), entropy::random_id());
        self.socket.send_with_descriptor(&attach.encode(&mut buffer), &descriptor)?;
        Ok(page)
    }
}

impl BeatTransport for ShmTransport {
    #[inline]
    fn send(&mut self, frame: &[u8; FRAME_LEN]) -> io::Result<usize> {
        if self.page_status == Some(frame[STATUS_OFFSET])
            && let Some(page) = self.page.as_ref().and_then(Page::get)
            && page.is_read_at(self.clock_offset.wrapping_add(timestamp(frame)))
        {
            self.writer.write(page, frame);
            return Ok(FRAME_LEN);
        }
        self.send_by_datagram(frame)
    }

    #[cold]
    fn reconnect(&mut self) -> io::Result<()> {
        self.socket.reconnect()?;
        self.page = None;
        self.page_status = None;
        self.attach_due = 0;
        Ok(())
    }

    #[cold]
    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        if datagram[KIND_OFFSET] == ControlKind::Goodbye as u8 {
            self.send_ordered(&datagram).0
        } else {
            self.socket.send_control(datagram)
        }
    }
}

impl fmt::Debug for ShmTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShmTransport")
            .field("socket", &self.socket)
            .field("has_page", &self.page.is_some())
            .finish_non_exhaustive()
    }
}

#[inline]
fn timestamp(frame: &[u8; FRAME_LEN]) -> u64 {
    u64::from_le_bytes(*field(frame, 8))
}

fn nonce(frame: &[u8; FRAME_LEN]) -> u64 {
    u64::from_le_bytes(*field(frame, 16))
}

fn pid(frame: &[u8; FRAME_LEN]) -> u32 {
    u32::from_le_bytes(*field(frame, 4))
}

/// Gives what stands at `offset`.
#[inline]
fn field<const N: usize>(frame: &[u8; FRAME_LEN], offset: usize) -> &[u8; N] {
    frame[offset..].first_chunk().expect("every field of a frame is within it")
}

#[cfg(test)]
mod tests;
