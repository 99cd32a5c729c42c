//! The last word of a process that panics.
//!
//! A process that dies of a panic falls silent like any other, and a server would have to wait to be sure. The hook
//! tells it at once, with a frame that no ordinary beat looks like.

#[cfg(feature = "secure-udp")]
mod secure;
#[cfg(feature = "udp")]
mod udp;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::panic;
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::agent::nanoseconds;
use crate::fork::Incarnation;
use crate::outcome::{BeatOutcome, DropReason, classify_send_error};
use crate::patience::patiently;
use crate::sys;
use crate::transport::uds;

#[cfg(feature = "secure-udp")]
pub use secure::{install_panic_handler_secure_udp, install_panic_handler_secure_udp_with_master};
#[cfg(feature = "udp")]
pub use udp::install_panic_handler_udp;

/// Held while hooks are exchanged, and never by a hook: two threads that install at once would lose one of two hooks.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Has every panic of this process send a terminal frame to the server that listens at `path`, before the hook that is
/// in place now does what it does.
///
/// The frame says [`Status::Critical`] with the nonce [`NONCE_TERMINAL`], the pid of the process that panics, the time
/// since this call, and the payload 0. The socket for it is prepared here. If nobody listens on it any more when a
/// panic comes the hook makes one attempt with a fresh one; if the server's queue is full it tries again for up to 15
/// ms. The hook takes no lock and shares nothing that changes, so threads that panic together each send their frame.
/// The hook that was in place runs in every case.
///
/// A server that is not there yet does not matter: the hook connects when it has something to send.
///
/// With `panic = "abort"` it works the same, because hooks run before the abort. A process that survives its panic
/// (`catch_unwind`, a thread that nobody joins) beats on, and the server takes it for alive again.
///
/// Each call adds a hook: after two there are two frames, to one server or to two.
///
/// # Errors
///
/// No socket can have this path, this process may not connect, there is no descriptor left, or the calling thread is
/// panicking. Then nothing is installed.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// use varta_agent::Frame;
///
/// varta_agent::install_panic_handler(&path)?;
/// let _ = std::panic::catch_unwind(|| panic!("out of cheese"));
///
/// let mut frame = [0; 32];
/// server.recv(&mut frame)?;
/// assert!(Frame::decode(&frame)?.is_terminal());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn install_panic_handler(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    let address = uds::address_of(&path)?;
    install(ToUnixSocket { address, path })
}

/// Puts a hook in place that goes `way`, before the one that is there.
fn install<W: Way>(way: W) -> io::Result<()> {
    let last_word = LastWord::prepare(way)?;
    if thread::panicking() {
        return Err(io::Error::other("a thread that is panicking cannot install a panic hook"));
    }
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        last_word.send();
        previous(info);
    }));
    Ok(())
}

/// How a last word gets out of the process. Threads that panic together go it together.
trait Way: Send + Sync + 'static {
    type Socket: AsFd + Send + Sync + 'static;
    type Datagram: AsRef<[u8]>;

    /// Opens a socket and connects it. It does not wait.
    fn connected(&self) -> io::Result<Self::Socket>;

    /// Makes the error for the person who chose where to.
    fn refusal(&self, source: io::Error) -> io::Error;

    /// Makes what goes out for a frame, or nothing where that may not go out. It does not wait either.
    fn datagram(&self, frame: &Frame) -> Option<Self::Datagram>;
}

/// To a server on this host.
struct ToUnixSocket {
    address: SocketAddr,
    path: PathBuf,
}

impl Way for ToUnixSocket {
    type Socket = UnixDatagram;
    type Datagram = [u8; 32];

    fn connected(&self) -> io::Result<UnixDatagram> {
        uds::connected(&self.address)
    }

    fn refusal(&self, source: io::Error) -> io::Error {
        uds::refusal(&self.path, source)
    }

    fn datagram(&self, frame: &Frame) -> Option<[u8; 32]> {
        Some(frame.to_bytes())
    }
}

/// What the hook needs, ready before the panic.
struct LastWord<W: Way> {
    way: W,
    /// The socket that was prepared, if the server was there.
    socket: Option<W::Socket>,
    installed: Instant,
}

impl<W: Way> LastWord<W> {
    fn prepare(way: W) -> io::Result<Self> {
        let socket = match way.connected() {
            Ok(socket) => Some(socket),
            Err(error) if classify_send_error(&error).is_dropped() => None,
            Err(error) => return Err(way.refusal(error)),
        };
        Ok(Self { way, socket, installed: Instant::now() })
    }

    /// Sends the frame if there is a way to. It waits for nothing but a full queue.
    fn send(&self) {
        let Some(datagram) = self.way.datagram(&self.frame()) else { return };
        let send = |socket: &W::Socket| {
            patiently(thread::sleep, is_full, || sys::send_now(socket, datagram.as_ref()))
        };
        match self.socket.as_ref().map(send) {
            Some(Ok(_)) => {}
            // A fresh socket would lead to the same queue.
            Some(full) if is_full(&full) => {}
            // Nobody is left who could be told of an error.
            Some(Err(_)) | None => drop(self.way.connected().and_then(|fresh| send(&fresh))),
        }
    }

    fn frame(&self) -> Frame {
        // Asked for here and not remembered: there is time, and it is right whatever the process has gone through.
        let pid = match process::id() {
            0 | 1 => Incarnation::current().pid(),
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
