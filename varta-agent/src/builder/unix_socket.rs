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

    /// Connects with the first beat, so that a program can start before its server.
    ///
    /// While there is no server, each beat looks for one and is
    /// [`Dropped(NoObserver)`](crate::DropReason::NoObserver) if there is none. It does so with any setting
    /// of [`reconnect_after`](Self::reconnect_after), which only applies to lost connections.
    ///
    /// The handle sends nothing until its first beat, and then its Hello and that beat. So a process that
    /// connects and leaves all beats to the children that it forks does not appear as an agent.
    pub const fn lazy(mut self) -> Self {
        self.source.lazy = true;
        self
    }

    /// Creates the handle.
    ///
    /// # Errors
    ///
    /// The path is invalid for a socket, or a setting is invalid. Unless the handle is [`lazy`](Self::lazy),
    /// also: no server listens there, this process has no permission to connect, or there is no descriptor
    /// left. The message names the path and says what to do.
    pub fn connect(self) -> io::Result<Varta> {
        let settings = self.settings.validated()?;
        let is_lazy = self.source.lazy;
        let transport = self.source.transport()?;
        Ok(Varta::with_profile(transport, settings.reconnect_after, settings.profile, !is_lazy))
    }
}

impl UnixSocket {
    /// Creates the transport, and connects it unless the handle is lazy.
    pub(super) fn transport(self) -> io::Result<UdsTransport> {
        let (transport, hint) = match self.path {
            Some(path) => (UdsTransport::at(&path)?, ConnectHint::Path),
            None => (UdsTransport::at_default(|name| env::var_os(name))?, ConnectHint::Environment),
        };
        if self.lazy { Ok(transport) } else { transport.connect_now(hint) }
    }
}
