//! Handles with beats through a Unix socket.

use std::env;
use std::io;
use std::path::PathBuf;

use super::settings::{Builder, UnixSocket};
use crate::agent::Varta;
use crate::transport::UdsTransport;
use crate::transport::uds::ConnectHint;

impl Builder {
    /// Sets the path of the server's socket. The default is that of
    /// [`connect_default`](Varta::connect_default).
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.source.path = Some(path.into());
        self
    }

    /// Connects with the first beat, so that a program can start before its server: the default.
    ///
    /// While there is no server, each beat looks for one and is
    /// [`Dropped(NoObserver)`](crate::DropReason::NoObserver) if there is none. It does so with any setting
    /// of [`reconnect_after`](Self::reconnect_after), which only applies to lost connections.
    ///
    /// The handle sends nothing until its first beat, and then its Hello and that beat. So a process that
    /// connects and leaves all beats to the children that it forks does not appear as an agent.
    pub const fn lazy(mut self) -> Self {
        self.source.is_eager = false;
        self
    }

    /// Connects in [`connect`](Self::connect), which fails if no server listens: for a program that must not
    /// run unobserved.
    ///
    /// ```
    /// use varta_agent::Varta;
    ///
    /// let builder = || Varta::builder().socket("/nowhere/varta.sock");
    /// assert!(builder().connect().is_ok());
    /// assert!(builder().eager().connect().is_err());
    /// ```
    pub const fn eager(mut self) -> Self {
        self.source.is_eager = true;
        self
    }

    /// Creates the handle.
    ///
    /// # Errors
    ///
    /// The path is invalid for a socket, or a setting is invalid. If the handle is [`eager`](Self::eager),
    /// also: no server listens there, this process has no permission to connect, or there is no descriptor
    /// left. The message names the path and says what to do.
    pub fn connect(self) -> io::Result<Varta> {
        let settings = self.settings.validated()?;
        let is_eager = self.source.is_eager;
        let transport = self.source.transport()?;
        Ok(Varta::with_profile(transport, settings.reconnect_after, settings.profile, is_eager))
    }
}

impl UnixSocket {
    /// Creates the transport, and connects it if the handle is eager.
    pub(super) fn transport(self) -> io::Result<UdsTransport> {
        let (transport, hint) = match self.path {
            Some(path) => (UdsTransport::at(&path)?, ConnectHint::Path),
            None => (UdsTransport::at_default(|name| env::var_os(name))?, ConnectHint::Environment),
        };
        if self.is_eager { transport.connect_now(hint) } else { Ok(transport) }
    }
}
