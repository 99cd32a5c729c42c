//! The panic hook over UDP.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use varta_proto::Frame;

use super::hook::{PanicTransport, install};
use crate::transport::udp;

/// Installs a panic hook that sends a terminal frame to the server at `addr` by UDP (features `panic-handler`
/// and `udp`).
///
/// Everything described for [`install_panic_handler`](crate::install_panic_handler) applies. A missing server
/// is detected only if its host reports it, and then too late for this frame.
///
/// # Errors
///
/// There is no route to this address, its port is 0, there is no descriptor left, or the calling thread is
/// panicking. No hook is installed then.
///
/// ```
/// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// # let addr = server.local_addr()?;
/// use varta_agent::Frame;
///
/// varta_agent::install_panic_handler_udp(addr)?;
/// let _ = std::panic::catch_unwind(|| panic!("out of cheese"));
///
/// let mut frame = [0; 32];
/// server.recv(&mut frame)?;
/// assert!(Frame::decode(&frame)?.is_terminal());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn install_panic_handler_udp(addr: SocketAddr) -> io::Result<()> {
    install(PanicUdp { server: addr })
}

struct PanicUdp {
    server: SocketAddr,
}

impl PanicTransport for PanicUdp {
    type Socket = UdpSocket;
    type Datagram = [u8; 32];

    fn connect(&self) -> io::Result<UdpSocket> {
        udp::connect_socket(self.server)
    }

    fn connect_error(&self, source: io::Error) -> io::Error {
        udp::connect_error(self.server, source)
    }

    fn datagram(&self, frame: &Frame) -> Option<[u8; 32]> {
        Some(frame.to_bytes())
    }
}
