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
use crate::ingest::listeners::reader::Reader;
use crate::ingest::notify::{NotifyAddress, NotifyListener, NotifyServices};
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
    /// A socket for notifications that is a file.
    Notify(SocketOptions),
    /// One that has an abstract name.
    NotifyName(NotifyAddress),
}

impl Wanted {
    /// All listeners of the options: Unix sockets first.
    pub(super) fn all(options: &IngestOptions) -> impl Iterator<Item = Wanted> {
        let unix = options.sockets.iter().cloned().map(Wanted::Unix);
        let udp = options.udp.iter().map(|address| Wanted::Udp(options.udp_socket(*address)));
        let secure = options.secure_udp.iter();
        let secure = secure.map(|address| Wanted::SecureUdp(options.udp_socket(*address)));
        let notify = options.notify.iter().map(|socket| match &socket.address {
            NotifyAddress::Path(_) => Wanted::Notify(socket.options()),
            NotifyAddress::Abstract(_) => Wanted::NotifyName(socket.address.clone()),
        });
        unix.chain(udp).chain(secure).chain(notify)
    }

    /// Whether both name the same path or address, however that is to be served.
    pub(super) fn is_same(&self, other: &Wanted) -> bool {
        match (self, other) {
            (Wanted::Unix(one), Wanted::Unix(other)) | (Wanted::Notify(one), Wanted::Notify(other)) => {
                one.path == other.path
            }
            (Wanted::NotifyName(one), Wanted::NotifyName(other)) => one == other,
            (Wanted::Udp(one), Wanted::Udp(other)) | (Wanted::SecureUdp(one), Wanted::SecureUdp(other)) => {
                one.address == other.address
            }
            _ => false,
        }
    }

    /// By what a socket that has a file is bound.
    pub(super) fn file(&self) -> Option<&SocketOptions> {
        match self {
            Wanted::Unix(options) | Wanted::Notify(options) => Some(options),
            Wanted::Udp(_) | Wanted::SecureUdp(_) | Wanted::NotifyName(_) => None,
        }
    }

    /// The option that names it, and the settings of a UDP socket; `None` for a Unix socket.
    pub(super) fn udp(&self) -> Option<(&'static str, &UdpOptions)> {
        match self {
            Wanted::Unix(_) | Wanted::Notify(_) | Wanted::NotifyName(_) => None,
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
    pub(super) services: NotifyServices,
    /// Sockets that were bound before, and the files of all.
    pub(super) given: GivenSockets,
}

/// A bound listener, and the check socket beside a Unix socket. A drop releases them.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) wanted: Wanted,
    pub(super) listener: Reader,
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
        let listener = self.open(&wanted, queue)?;
        let check = match &wanted {
            Wanted::Unix(options) => CheckSocket::beside(options, self.allowed.clone(), given),
            Wanted::Udp(_) | Wanted::SecureUdp(_) | Wanted::Notify(_) | Wanted::NotifyName(_) => None,
        };
        let probe = Arc::new(listener.probe()?);
        Ok(Bound { wanted, listener, check, probe, queue })
    }

    /// Binds a socket, or takes a given one.
    pub(super) fn open(&self, wanted: &Wanted, queue: usize) -> Result<Reader, Error> {
        let given = &self.given;
        let (allowed, services) = (self.allowed.clone(), self.services.clone());
        let notify = |listener| Reader::Notify(Box::new(listener));
        Ok(match wanted {
            Wanted::Unix(options) => {
                Reader::Beats(Listener::unix(options, queue, allowed, self.pages.clone(), given)?)
            }
            Wanted::Udp(options) => Reader::Beats(Listener::udp(options, given)?),
            Wanted::SecureUdp(options) => {
                Reader::Beats(Listener::secure_udp(options, self.keyring.clone(), given)?)
            }
            Wanted::Notify(options) => {
                notify(NotifyListener::at_path(options, queue, allowed, services, given)?)
            }
            Wanted::NotifyName(address) => {
                notify(NotifyListener::at_name(address, allowed, services, given)?)
            }
        })
    }
}

impl Bound {
    /// The file of the check socket.
    pub(super) fn check_file(&self) -> Option<&HeldSocket> {
        self.check.as_ref().map(CheckSocket::file)
    }
}
