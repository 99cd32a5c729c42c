//! The endpoint of a listener: a Unix socket's path or a UDP address, as logs, errors and options write it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::error::Error;
use crate::domain::beat::Transport;

/// The address that a listener is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Unix(PathBuf),
    Udp(SocketAddr),
    SecureUdp(SocketAddr),
}

impl Endpoint {
    pub(crate) const fn transport(&self) -> Transport {
        match self {
            Endpoint::Unix(_) => Transport::Unix,
            Endpoint::Udp(_) => Transport::Udp,
            Endpoint::SecureUdp(_) => Transport::SecureUdp,
        }
    }

    /// The address of a UDP socket; `None` for a Unix socket.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Unix(_) => None,
            Endpoint::Udp(address) | Endpoint::SecureUdp(address) => Some(*address),
        }
    }
}

/// `unix:/run/varta/varta.sock`, `udp:127.0.0.1:9844`, `secure-udp:[::]:9845`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Udp(address) => write!(f, "udp:{address}"),
            Endpoint::SecureUdp(address) => write!(f, "secure-udp:{address}"),
        }
    }
}

impl Endpoint {
    pub(super) fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Listener { endpoint: self.to_string(), action, source }
    }
}
