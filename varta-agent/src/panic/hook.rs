//! The panic hook, with any transport.

use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::fork::ProcessLife;
use crate::outcome::{BeatOutcome, DropReason, classify_send_error};
use crate::retry::retry_while_full;
use crate::sys;
use crate::time::nanoseconds;

/// Held while hooks are exchanged, and never by a hook: two threads that install at once would lose one of
/// two hooks.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs a hook that sends through `transport` and then runs the previous hook.
pub(super) fn install<T: PanicTransport>(transport: T) -> io::Result<()> {
    let terminal_frame = TerminalFrame::prepare(transport)?;
    if thread::panicking() {
        return Err(io::Error::other("a thread that is panicking cannot install a panic hook"));
    }
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        terminal_frame.send();
        previous(info);
    }));
    Ok(())
}

/// Sends the terminal frame of a panic. Threads that panic at the same time share it.
pub(super) trait PanicTransport: Send + Sync + 'static {
    type Socket: AsFd + Send + Sync + 'static;
    type Datagram: AsRef<[u8]>;

    /// Opens a socket and connects it, without blocking.
    fn connect(&self) -> io::Result<Self::Socket>;

    /// Creates the error of [`connect`](Self::connect) for the caller of the install function.
    fn connect_error(&self, source: io::Error) -> io::Error;

    /// Encodes a frame as a datagram; `None` if it cannot be sealed. It does not block.
    fn datagram(&self, frame: &Frame) -> Option<Self::Datagram>;
}

/// Sends the terminal frame; everything it needs is prepared before the panic.
struct TerminalFrame<T: PanicTransport> {
    transport: T,
    /// The socket prepared at installation, if the server was there.
    socket: Option<T::Socket>,
    installed: Instant,
}

impl<T: PanicTransport> TerminalFrame<T> {
    fn prepare(transport: T) -> io::Result<Self> {
        let socket = match transport.connect() {
            Ok(socket) => Some(socket),
            Err(error) if classify_send_error(&error).is_dropped() => None,
            Err(error) => return Err(transport.connect_error(error)),
        };
        Ok(Self { transport, socket, installed: Instant::now() })
    }

    /// Sends the frame, if the server can be reached. It waits only for a full queue.
    fn send(&self) {
        let Some(datagram) = self.transport.datagram(&self.frame()) else { return };
        let send = |socket: &T::Socket| {
            retry_while_full(thread::sleep, is_full, || sys::send_now(socket, datagram.as_ref()))
        };
        match self.socket.as_ref().map(send) {
            Some(Ok(_)) => {}
            // A fresh socket would lead to the same queue.
            Some(full) if is_full(&full) => {}
            // An error cannot be reported any more.
            Some(Err(_)) | None => drop(self.transport.connect().and_then(|fresh| send(&fresh))),
        }
    }

    fn frame(&self) -> Frame {
        // Determined here and not stored: there is time, and it is right after any number of forks.
        let pid = match process::id() {
            0 | 1 => ProcessLife::current().pid(),
            pid => pid,
        };
        Frame::new(Status::Critical, pid, nanoseconds(self.installed.elapsed()), NONCE_TERMINAL, 0)
    }
}

fn is_full(sent: &io::Result<usize>) -> bool {
    let full = BeatOutcome::Dropped(DropReason::KernelQueueFull);
    sent.as_ref().is_err_and(|error| classify_send_error(error) == full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_full_queue_is_waited_for() {
        for (kind, full) in [(io::ErrorKind::WouldBlock, true), (io::ErrorKind::ConnectionRefused, false)] {
            assert_eq!(is_full(&Err(kind.into())), full, "{kind}");
        }
        assert!(!is_full(&Ok(32)));
    }
}
