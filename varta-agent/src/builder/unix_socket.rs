//! Handles that beat through a Unix socket.

use std::env;
use std::io;
use std::path::PathBuf;

use super::settings::{Builder, UnixSocket};
use crate::agent::Varta;
use crate::transport::UdsTransport;
use crate::transport::uds::ConnectHint;

impl Builder {
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
    ///
    /// Nor does the handle say anything before its first beat: what it has to say of itself goes out behind that one.
    /// So a process that connects and leaves all beats to the children that it forks is not taken for an agent.
    pub const fn lazy(mut self) -> Self {
        self.source.lazy = true;
        self
    }

    /// Makes the handle.
    ///
    /// # Errors
    ///
    /// No socket can have the path that was given, or a setting cannot be. Unless the handle is [`lazy`](Self::lazy),
    /// also: nobody listens there, this process may not connect, or there is no descriptor left. The message names the
    /// path and says what to do.
    pub fn connect(self) -> io::Result<Varta> {
        let settings = self.settings.validated()?;
        let is_lazy = self.source.lazy;
        let transport = self.source.transport()?;
        Ok(Varta::with_profile(transport, settings.reconnect_after, settings.profile, !is_lazy))
    }
}

impl UnixSocket {
    /// Makes the transport, connected unless it is to look for its server later.
    pub(super) fn transport(self) -> io::Result<UdsTransport> {
        let (transport, hint) = match self.path {
            Some(path) => (UdsTransport::at(&path)?, ConnectHint::Path),
            None => (UdsTransport::at_default(|name| env::var_os(name))?, ConnectHint::Environment),
        };
        if self.lazy { Ok(transport) } else { transport.connect_now(hint) }
    }
}
