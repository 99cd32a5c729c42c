//! The panic hook through a Unix socket.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

use varta_proto::Frame;
#[cfg(doc)]
use varta_proto::{NONCE_TERMINAL, Status};

use super::hook::{PanicTransport, install};
use crate::transport::uds;

/// Installs a panic hook that sends a terminal frame to the server that listens at `path`, and then runs the
/// previous hook.
///
/// The frame has [`Status::Critical`], the nonce [`NONCE_TERMINAL`], the pid of the process that panics, the
/// time since this call, and payload 0. This call prepares the socket. If the server has closed its end when
/// a panic comes, the hook makes one attempt with a fresh socket; if the server's queue is full, it tries
/// again for up to 15 ms. The hook takes no lock and has no mutable state, so threads that panic at the same
/// time each send their frame. The previous hook runs in every case.
///
/// The server need not run yet: the hook connects when it has something to send.
///
/// It works with `panic = "abort"` too, because hooks run before the abort. A process that survives its panic
/// (`catch_unwind`, a thread that is not joined) goes on sending beats, and the server sees it alive again.
///
/// Each call adds a hook: after two calls a panic sends two frames, to one server or to two.
///
/// # Errors
///
/// The path is invalid for a socket, this process has no permission to connect, there is no descriptor left,
/// or the calling thread is panicking. No hook is installed then.
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

/// Sends to a server on this host.
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
