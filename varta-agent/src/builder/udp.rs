//! Handles with beats over UDP.

use std::io;
use std::net::SocketAddr;

use super::settings::Builder;
use crate::agent::Varta;
use crate::transport::UdpTransport;

/// The source of a [`Builder`]'s transport: a UDP socket that the builder connects (feature `udp`).
#[derive(Debug)]
pub struct UdpServer(SocketAddr);

impl<S> Builder<S> {
    /// Sends by UDP to the server at `addr`, without encryption (feature `udp`).
    ///
    /// ```
    /// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # let addr = server.local_addr()?;
    /// use varta_agent::{Status, Varta};
    ///
    /// let mut agent = Varta::builder().udp(addr).connect()?;
    /// let _ = agent.beat(Status::Ok, 0);
    /// # assert_eq!(server.recv(&mut [0; 64])?, 32);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn udp(self, addr: SocketAddr) -> Builder<UdpServer> {
        Builder { settings: self.settings, source: UdpServer(addr) }
    }
}

/// Handles with beats over UDP (feature `udp`).
impl Builder<UdpServer> {
    /// Creates the handle, as [`Varta::connect_udp`] does. A missing route to the server's address is no error:
    /// each beat looks for one.
    ///
    /// # Errors
    ///
    /// The port of the server's address is 0, or a setting is invalid. The message names the address, or the
    /// setting and why.
    pub fn connect(self) -> io::Result<Varta<UdpTransport>> {
        let transport = UdpTransport::lazy(self.source.0);
        self.settings.build(transport)
    }
}
