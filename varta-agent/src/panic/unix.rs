//! The last word through a Unix socket.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

use varta_proto::Frame;
#[cfg(doc)]
use varta_proto::{NONCE_TERMINAL, Status};

use super::hook::{PanicTransport, install};
use crate::transport::uds;

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
    let address = uds::socket_address(&path)?;
    install(PanicUnix { address, path })
}

/// To a server on this host.
struct PanicUnix {
    address: SocketAddr,
    path: PathBuf,
}

impl PanicTransport for PanicUnix {
    type Socket = UnixDatagram;
    type Datagram = [u8; 32];

    fn connect(&self) -> io::Result<UnixDatagram> {
        uds::connect_socket(&self.address)
    }

    fn connect_error(&self, source: io::Error) -> io::Error {
        uds::connect_error(&self.path, source)
    }

    fn datagram(&self, frame: &Frame) -> Option<[u8; 32]> {
        Some(frame.to_bytes())
    }
}
