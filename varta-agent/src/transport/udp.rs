//! Beats over UDP, without encryption.
//!
//! For a server on another host, over a trusted network. The server cannot verify the sender of a beat, and
//! the sender can hardly detect whether it arrived.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use varta_proto::control::EncodedControl;

use crate::sys;
use crate::transport::BeatTransport;

/// Sends beats to a server by UDP, over IPv4 or IPv6 (feature `udp`).
/// [`Varta::connect_udp`](crate::Varta::connect_udp) creates a handle with it, and describes what its
/// outcomes mean.
///
/// ```
/// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// # let addr = server.local_addr()?;
/// use varta_agent::{Status, UdpTransport, Varta};
///
/// let transport = UdpTransport::connect(addr)?;
/// let mut agent = Varta::builder().transport(transport).reconnect_after(0).connect()?;
/// assert!(agent.beat(Status::Ok, 0).is_sent());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct UdpTransport {
    /// Connected, so that the kernel looks up the route once and reports a missing server. `None` until there
    /// is a route.
    socket: Option<UdpSocket>,
    server: SocketAddr,
}

impl UdpTransport {
    /// Creates a socket for the server at `addr`. Nothing is sent, so the server need not run.
    ///
    /// # Errors
    ///
    /// There is no route to this address, its port is 0, or there is no descriptor left. The message names
    /// the address.
    ///
    /// ```
    /// let error = varta_agent::UdpTransport::connect(([127, 0, 0, 1], 0).into()).unwrap_err();
    /// assert_eq!(error.to_string(), "cannot connect to 127.0.0.1:0: no server listens on port 0");
    /// ```
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let socket = connect_socket(addr).map_err(|source| connect_error(addr, source))?;
        Ok(Self { socket: Some(socket), server: addr })
    }

    /// Creates a transport for the server at `addr`. If there is no route to it yet, each send looks for one.
    pub(crate) fn lazy(addr: SocketAddr) -> io::Result<Self> {
        check_port(addr).map_err(|source| connect_error(addr, source))?;
        Ok(Self { socket: connect_socket(addr).ok(), server: addr })
    }

    /// Returns the address of the server.
    #[cfg(feature = "secure-udp")]
    pub(crate) const fn server(&self) -> SocketAddr {
        self.server
    }

    /// Sends a datagram of any length.
    #[inline]
    pub(crate) fn send_datagram(&mut self, datagram: &[u8]) -> io::Result<usize> {
        if self.socket.is_none() {
            self.reconnect()?;
        }
        match &self.socket {
            Some(socket) => sys::send_now(socket, datagram),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl BeatTransport for UdpTransport {
    #[inline]
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
        self.send_datagram(frame)
    }

    #[cold]
    fn reconnect(&mut self) -> io::Result<()> {
        self.socket = Some(connect_socket(self.server)?);
        Ok(())
    }

    #[cold]
    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        self.send_datagram(&datagram)
    }
}

/// Opens a socket of the server's address family, on a port of the kernel's choice, and connects it. It does
/// not block, and does not allocate unless the port is 0.
pub(crate) fn connect_socket(server: SocketAddr) -> io::Result<UdpSocket> {
    check_port(server)?;
    let anywhere: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((anywhere, 0))?;
    socket.connect(server)?;
    Ok(socket)
}

fn check_port(server: SocketAddr) -> io::Result<()> {
    if server.port() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no server listens on port 0"));
    }
    Ok(())
}

/// Creates the error of a connect to `server`, with its address in the message.
pub(crate) fn connect_error(server: SocketAddr, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), ConnectError { server, source })
}

/// The error of a connect, with the address for its message.
#[derive(Debug)]
struct ConnectError {
    server: SocketAddr,
    source: io::Error,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}: {}", self.server, self.source)
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
