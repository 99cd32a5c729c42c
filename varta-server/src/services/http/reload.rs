//! What a reload gives the running HTTP server: another address, and other settings.

use std::net::{SocketAddr, TcpListener as BoundListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::Type;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::services::http::access::{Access, Settings};
use crate::services::http::listener::{Endpoint, Listening, ReplaceableListener};
use crate::services::http::options::HttpOptions;

/// Where HTTP is served. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The address that the options name.
    wanted: Arc<Mutex<Option<SocketAddr>>>,
    listening: watch::Sender<Listening>,
}

/// The way to give it another address and other settings.
#[derive(Clone, Debug)]
pub(crate) struct Reload(pub(super) Place);

/// What does not count yet. A drop releases the address.
#[derive(Debug)]
pub(crate) struct Staged {
    place: Place,
    next: Next,
}

#[derive(Debug)]
enum Next {
    /// At the same address other settings.
    Settings(Settings),
    /// Another address, or none.
    Place(Option<SocketAddr>, Listening),
}

impl Reload {
    /// Takes the options, which have been checked, and the address if it is another one.
    ///
    /// # Errors
    ///
    /// When it cannot be had.
    pub(crate) fn stage(&self, options: HttpOptions) -> Result<Staged, Error> {
        let (address, settings) = (options.address, Settings::from(options));
        let Reload(place) = self;
        let is_there = *place.wanted() == address;
        let next = match address {
            _ if is_there => Next::Settings(settings),
            None => Next::Place(None, None),
            Some(wanted) => Next::Place(address, Some(listen(bind(wanted)?, Access::new(settings))?)),
        };
        Ok(Staged { place: place.clone(), next })
    }
}

impl Staged {
    /// Has it count from the next request on. Who came by a former address is served as that was.
    pub(crate) fn commit(self) {
        let Staged { place, next } = self;
        match next {
            Next::Settings(settings) => {
                if let Some(endpoint) = &*place.listening.borrow() {
                    endpoint.access.set(settings);
                }
            }
            Next::Place(wanted, listening) => {
                if let Some(endpoint) = &listening {
                    endpoint.access.warn();
                }
                *place.wanted() = wanted;
                place.take(listening);
            }
        }
    }
}

impl Place {
    /// For a server whose options name this address, before it listens.
    pub(super) fn new(wanted: Option<SocketAddr>) -> Self {
        Place { wanted: Arc::new(Mutex::new(wanted)), listening: watch::Sender::new(None) }
    }

    /// Has HTTP be served there.
    pub(super) fn take(&self, listening: Listening) {
        let place = listening
            .as_ref()
            .and_then(|endpoint| Some((endpoint.socket.local_addr().ok()?, endpoint.access.scheme())));
        match place {
            Some((address, scheme)) => {
                tracing::info!(target: "varta::server", %address, "metrics on {scheme}://{address}/metrics");
            }
            None => tracing::info!(target: "varta::server", "metrics are served nowhere"),
        }
        self.listening.send_replace(listening);
    }

    /// What accepts connections there.
    pub(super) fn listener(&self, local: mpsc::Receiver<UnixStream>) -> ReplaceableListener {
        ReplaceableListener::new(self.listening.subscribe(), local)
    }

    fn wanted(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the given socket of this address, or binds one.
pub(super) fn bind_or_take(address: SocketAddr, given: &GivenSockets) -> Result<BoundListener, Error> {
    match given.take_inet(address, Type::STREAM, "--metrics-addr")? {
        Some(given) => Ok(OwnedFd::from(given.into_socket()).into()),
        None => bind(address),
    }
}

/// Binds a socket that listens.
fn bind(address: SocketAddr) -> Result<BoundListener, Error> {
    let failed = |source| Error::MetricsAddress { address, source };
    let listener = BoundListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Has the runtime watch a socket.
pub(super) fn listen(socket: BoundListener, access: Access) -> Result<Arc<Endpoint>, Error> {
    let socket = TcpListener::from_std(socket)
        .map_err(|source| Error::Runtime { action: "watch the metrics socket", source })?;
    Ok(Arc::new(Endpoint { socket, access }))
}
