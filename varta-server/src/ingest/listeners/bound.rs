//! A listener that is bound and does not read yet, and what of the options it is.

use std::sync::Arc;

use tokio::sync::watch;

use crate::base::SocketOptions;
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::ingest::check::CheckSocket;
use crate::ingest::held_socket::HeldSocket;
use crate::ingest::keyring::Keyring;
use crate::ingest::listener::Listener;
use crate::ingest::options::IngestOptions;
use crate::ingest::queue_probe::Probe;
use crate::ingest::senders::AllowedSenders;
use crate::ingest::shm::ShmPages;
use crate::ingest::udp::Options as UdpOptions;

/// A listener as the options name it.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Unix(SocketOptions),
    Udp(UdpOptions),
    SecureUdp(UdpOptions),
}

impl Wanted {
    /// All listeners of the options: Unix sockets first.
    pub(super) fn all(options: &IngestOptions) -> impl Iterator<Item = Wanted> {
        let unix = options.sockets.iter().cloned().map(Wanted::Unix);
        let udp = options.udp.iter().map(|address| Wanted::Udp(options.udp_socket(*address)));
        let secure = options.secure_udp.iter();
        let secure = secure.map(|address| Wanted::SecureUdp(options.udp_socket(*address)));
        unix.chain(udp).chain(secure)
    }

    /// Whether both name the same path or address, however that is to be served.
    pub(super) fn is_same(&self, other: &Wanted) -> bool {
        match (self, other) {
            (Wanted::Unix(one), Wanted::Unix(other)) => one.path == other.path,
            (Wanted::Udp(one), Wanted::Udp(other)) | (Wanted::SecureUdp(one), Wanted::SecureUdp(other)) => {
                one.address == other.address
            }
            _ => false,
        }
    }

    /// The option that names it, and the settings of a UDP socket; `None` for a Unix socket.
    pub(super) fn udp(&self) -> Option<(&'static str, &UdpOptions)> {
        match self {
            Wanted::Unix(_) => None,
            Wanted::Udp(options) => Some(("--udp", options)),
            Wanted::SecureUdp(options) => Some(("--secure-udp", options)),
        }
    }
}

/// What listeners are made of, besides their options.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) pages: ShmPages,
    pub(super) keyring: Keyring,
    pub(super) allowed: watch::Receiver<AllowedSenders>,
    /// Sockets that were bound before, and the files of all.
    pub(super) given: GivenSockets,
}

/// A bound listener, and the check socket beside a Unix socket. A drop releases them.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) wanted: Wanted,
    pub(super) listener: Listener,
    pub(super) check: Option<CheckSocket>,
    pub(super) probe: Arc<Probe>,
    /// The number of datagrams that the queue of a Unix socket is to hold.
    pub(super) queue: usize,
}

impl Parts {
    /// Binds a listener, or takes a given socket. `queue` is the number of datagrams that the queue of a Unix socket
    /// is to hold.
    pub(super) fn bind(&self, wanted: Wanted, queue: usize) -> Result<Bound, Error> {
        let given = &self.given;
        let listener = match &wanted {
            Wanted::Unix(options) => {
                Listener::unix(options, queue, self.allowed.clone(), self.pages.clone(), given)?
            }
            Wanted::Udp(options) => Listener::udp(options, given)?,
            Wanted::SecureUdp(options) => Listener::secure_udp(options, self.keyring.clone(), given)?,
        };
        let check = match &wanted {
            Wanted::Unix(options) => CheckSocket::beside(options, self.allowed.clone(), given),
            Wanted::Udp(_) | Wanted::SecureUdp(_) => None,
        };
        let probe = Arc::new(listener.probe()?);
        Ok(Bound { wanted, listener, check, probe, queue })
    }
}

impl Bound {
    /// The file of the check socket.
    pub(super) fn check_file(&self) -> Option<&HeldSocket> {
        self.check.as_ref().map(CheckSocket::file)
    }
}
