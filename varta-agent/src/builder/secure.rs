//! Handles with sealed beats over UDP.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use varta_proto::secure::Key;

use super::settings::Builder;
use crate::agent::Varta;
use crate::transport::secure::Keys;
use crate::transport::{SecureUdpTransport, UdpTransport};

/// The source of a [`Builder`]'s transport: a UDP socket that the builder connects, and a key (feature
/// `secure-udp`).
pub struct SecureUdpServer {
    addr: SocketAddr,
    keys: Box<Keys>,
}

/// Shows the address, and nothing of the key.
impl fmt::Debug for SecureUdpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureUdpServer")
            .field("addr", &self.addr)
            .field("mode", &self.keys.mode())
            .finish_non_exhaustive()
    }
}

impl<S> Builder<S> {
    /// Sends by UDP to the server at `addr`, sealed with the key that the server shares with all its agents
    /// (feature `secure-udp`).
    ///
    /// ```
    /// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # let addr = server.local_addr()?;
    /// use varta_agent::{Key, Varta};
    ///
    /// // A program reads it with `Key::from_file`.
    /// let key = Key::from_bytes([0x8f; 32]);
    /// let agent = Varta::builder().name("sensor").secure_udp(addr, key).connect()?;
    /// # assert!(server.recv(&mut [0; 600])? > 64);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn secure_udp(self, addr: SocketAddr, key: Key) -> Builder<SecureUdpServer> {
        Builder { settings: self.settings, source: SecureUdpServer { addr, keys: Keys::shared(key) } }
    }

    /// Sends by UDP to the server at `addr`, sealed with a key that is derived from the server's master key
    /// for the pid of this process (feature `secure-udp`).
    ///
    /// ```
    /// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # let addr = server.local_addr()?;
    /// use varta_agent::{Key, Varta};
    ///
    /// let master = Key::from_bytes([0x8f; 32]);
    /// let agent = Varta::builder().name("sensor").secure_udp_with_master(addr, master).connect()?;
    /// # assert!(server.recv(&mut [0; 600])? > 64);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn secure_udp_with_master(self, addr: SocketAddr, key: Key) -> Builder<SecureUdpServer> {
        Builder { settings: self.settings, source: SecureUdpServer { addr, keys: Keys::master(key) } }
    }
}

/// Handles with sealed beats over UDP (feature `secure-udp`).
impl Builder<SecureUdpServer> {
    /// Creates the handle, as [`Varta::connect_secure_udp`] and
    /// [`connect_secure_udp_with_master`](Varta::connect_secure_udp_with_master) do. A missing route to the
    /// server's address is no error: each beat looks for one.
    ///
    /// # Errors
    ///
    /// The port of the server's address is 0, the operating system has no randomness, or a setting is invalid.
    /// The message names the address, or the setting and why.
    pub fn connect(self) -> io::Result<Varta<SecureUdpTransport>> {
        let SecureUdpServer { addr, keys } = self.source;
        self.settings.build(SecureUdpTransport::with(addr, keys, UdpTransport::lazy))
    }
}
