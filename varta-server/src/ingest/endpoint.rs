//! The endpoint of a listener: a Unix socket's path or a UDP address, as logs, errors and options write it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::base::error::Error;
use crate::domain::beat::Transport;
use crate::ingest::notify::NotifyAddress;

/// The address that a listener is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Unix(PathBuf),
    Udp(SocketAddr),
    SecureUdp(SocketAddr),
    Notify(NotifyAddress),
}

impl Endpoint {
    pub(crate) const fn transport(&self) -> Transport {
        match self {
            Endpoint::Unix(_) => Transport::Unix,
            Endpoint::Udp(_) => Transport::Udp,
            Endpoint::SecureUdp(_) => Transport::SecureUdp,
            Endpoint::Notify(_) => Transport::Notify,
        }
    }

    /// Whether it is a Unix socket that has no file.
    pub(crate) const fn is_abstract(&self) -> bool {
        matches!(self, Endpoint::Notify(NotifyAddress::Abstract(_)))
    }

    /// The path of a Unix socket that has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Endpoint::Unix(path) => Some(path),
            Endpoint::Notify(address) => address.path(),
            Endpoint::Udp(_) | Endpoint::SecureUdp(_) => None,
        }
    }

    /// The address of a UDP socket; `None` for a Unix socket.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Unix(_) | Endpoint::Notify(_) => None,
            Endpoint::Udp(address) | Endpoint::SecureUdp(address) => Some(*address),
        }
    }
}

/// `unix:/run/varta/varta.sock`, `udp:127.0.0.1:9844`, `secure-udp:[::]:9845`, `notify:/run/varta/notify`, `notify:@varta`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Udp(address) => write!(f, "udp:{address}"),
            Endpoint::SecureUdp(address) => write!(f, "secure-udp:{address}"),
            Endpoint::Notify(address) => write!(f, "notify:{address}"),
        }
    }
}

impl Endpoint {
    pub(super) fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Listener { endpoint: self.to_string(), action, source }
    }
}
