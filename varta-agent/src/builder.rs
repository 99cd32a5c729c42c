//! How a handle is made: everything about a beat that can fail or allocate happens here, once.

use std::env;
use std::io;
use std::path::PathBuf;

use crate::agent::Varta;
use crate::transport::uds::Advice;
use crate::transport::{BeatTransport, UdsTransport};

/// Lost beats in a row after which a handle from the builder reconnects: the first beat to a server that was restarted
/// is lost to the old socket, and goes out once more on a new one.
const DEFAULT_RECONNECT_AFTER: u32 = 1;

/// Makes a [`Varta`]; [`Varta::builder`] gives one.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// use varta_agent::{Status, Varta};
///
/// // Nobody listens yet, and a lazy handle does not mind.
/// let mut agent = Varta::builder().socket(&path).lazy().connect()?;
/// assert!(agent.beat(Status::Ok, 0).is_dropped());
///
/// let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// assert!(agent.beat(Status::Ok, 0).is_sent());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `connect`"]
pub struct Builder<S = UnixSocket> {
    reconnect_after: u32,
    source: S,
}

/// Where a [`Builder`] gets its transport from: a Unix socket that it connects itself.
#[derive(Debug, Default)]
pub struct UnixSocket {
    path: Option<PathBuf>,
    lazy: bool,
}

/// Where a [`Builder`] gets its transport from: the one that [`Builder::transport`] was given.
#[derive(Debug)]
pub struct CustomTransport<T>(T);

impl Builder {
    pub(crate) fn new() -> Self {
        Self { reconnect_after: DEFAULT_RECONNECT_AFTER, source: UnixSocket::default() }
    }

    /// Sends to the server that listens at `path`. Without it the handle looks where
    /// [`connect_default`](Varta::connect_default) does.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.source.path = Some(path.into());
        self
    }

    /// Connects when there is something to send, so that a program can start before its server.
    ///
    /// As long as there is no server, each beat looks for one and is
    /// [`Dropped(NoObserver)`](crate::DropReason::NoObserver) if there is still none. It does so whatever
    /// [`reconnect_after`](Self::reconnect_after) says, which is about connections that were lost.
    pub const fn lazy(mut self) -> Self {
        self.source.lazy = true;
        self
    }

    /// Makes the handle.
    ///
    /// # Errors
    ///
    /// No socket can have the path that was given. Unless the handle is [`lazy`](Self::lazy), also: nobody listens
    /// there, this process may not connect, or there is no descriptor left. The message names the path and says what to
    /// do.
    pub fn connect(self) -> io::Result<Varta> {
        let UnixSocket { path, lazy } = self.source;
        let (transport, advice) = match path {
            Some(path) => (UdsTransport::at(&path)?, Advice::Path),
            None => (UdsTransport::at_default(|name| env::var_os(name))?, Advice::Environment),
        };
        let transport = if lazy { transport } else { transport.connect_now(advice)? };
        Ok(Varta::new(transport, self.reconnect_after))
    }
}

impl<T: BeatTransport> Builder<CustomTransport<T>> {
    /// Makes the handle, of a transport that is ready.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn connect(self) -> io::Result<Varta<T>> {
        Ok(Varta::new(self.source.0, self.reconnect_after))
    }
}

impl<S> Builder<S> {
    /// Reconnects after `n` lost beats in a row, as [`Varta::set_reconnect_after`] says; 0 never does. Here the default
    /// is 1, with which a handle finds a restarted server by itself and loses no beat to the restart.
    pub fn reconnect_after(mut self, n: u32) -> Self {
        self.reconnect_after = n;
        self
    }

    /// Sends through `transport` and not through a socket that the builder connects.
    pub fn transport<T: BeatTransport>(self, transport: T) -> Builder<CustomTransport<T>> {
        Builder { reconnect_after: self.reconnect_after, source: CustomTransport(transport) }
    }
}
