//! Beats without a system call: through a page of memory that a server on this host reads.
//!
//! The page carries only beats with the same status as the one before. Everything else goes through the Unix
//! socket, as it does without a page: so a full queue, a missing server, a panic and a goodbye have the same
//! effects as there, and a server without support for pages loses nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
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

/// The delay until another page is handed over, if no server reads the current one: a server may have had no
/// room for it.
const REATTACH_AFTER: Duration = Duration::from_secs(60);
/// The same delay if the page could not be handed over, because the queue was full.
const RETRY_ATTACH_AFTER: Duration = Duration::from_secs(1);

/// The offset of the status in a frame.
const STATUS_OFFSET: usize = 3;
/// The offset of the kind in a control datagram.
const KIND_OFFSET: usize = 3;

/// Sends beats to a server on this host, most of them without a system call (feature `shm`, on Linux).
/// [`Varta::connect_shm`](crate::Varta::connect_shm) creates a handle with it, and describes which beats go
/// through the page.
///
/// The timestamps of the frames must come from a clock that runs at the rate of the host's.
pub struct ShmTransport {
    /// Carries everything that does not go through the page.
    socket: UdsTransport,
    page: Option<Page>,
    writer: Writer,
    /// The status of the last datagram, if beats with the same status may go through the page.
    page_status: Option<u8>,
    /// What to add to a timestamp for the host's monotonic time.
    clock_offset: u64,
    /// The host's time from which on another page is handed over if no server reads the current one.
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

    /// Returns whether a server currently reads the page.
    #[cfg(test)]
    fn is_read(&self) -> bool {
        let page = self.page.as_ref().and_then(Page::get);
        page.is_some_and(|page| page.is_read_at(sys::monotonic_nanos()))
    }

    /// Sends a datagram that the server must receive before anything that is written to the page afterwards.
    /// Returns the result and the host's time after it.
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
            // Every critical beat is sent as a datagram, so that each of them arrives.
            self.page_status = Some(frame[STATUS_OFFSET]).filter(|status| *status != Status::Critical as u8);
            if now >= self.attach_due && !self.has_reader(now) {
                self.attach(frame, now);
            }
        }
        sent
    }

    /// Returns whether a server has the page: one that reads it, or whose lease expired a short time ago.
    fn has_reader(&self, now: u64) -> bool {
        let page = self.page.as_ref().and_then(Page::get);
        page.is_some_and(|page| {
            page.is_read_at(now) || page.was_read_within(now, nanoseconds(REATTACH_AFTER))
        })
    }

    /// Hands over a new page after a beat. A failure affects only the page.
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

    fn server_path(&self) -> Option<PathBuf> {
        self.socket.server_path()
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

/// Returns the field at `offset`.
#[inline]
fn field<const N: usize>(frame: &[u8; FRAME_LEN], offset: usize) -> &[u8; N] {
    frame[offset..].first_chunk().expect("every field of a frame is within it")
}

#[cfg(test)]
mod tests;
