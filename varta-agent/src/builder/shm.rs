//! Handles that send beats through a page of memory.

use std::io;

use super::settings::{Builder, UnixSocket};
use crate::agent::Varta;
use crate::transport::ShmTransport;

/// The source of a [`Builder`]'s transport: a Unix socket that the builder connects, with a page of memory
/// (feature `shm`).
#[derive(Debug)]
pub struct SharedMemory(UnixSocket);

impl Builder<UnixSocket> {
    /// Sends beats with an unchanged status through a page of memory, as [`Varta::connect_shm`] does (feature
    /// `shm`, on Linux).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use varta_agent::{Status, Varta};
    ///
    /// let mut agent = Varta::builder().name("billing-worker").socket(&path).shm().connect()?;
    /// let _ = agent.beat(Status::Ok, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shm(self) -> Builder<SharedMemory> {
        Builder { settings: self.settings, source: SharedMemory(self.source) }
    }
}

/// Handles that send beats through a page of memory (feature `shm`).
impl Builder<SharedMemory> {
    /// Creates the handle.
    ///
    /// # Errors
    ///
    /// As for a handle without a page.
    pub fn connect(self) -> io::Result<Varta<ShmTransport>> {
        let settings = self.settings.validated()?;
        let is_eager = self.source.0.is_eager;
        let transport = ShmTransport::with_socket(self.source.0.transport()?);
        Ok(Varta::with_profile(transport, settings.reconnect_after, settings.profile, is_eager))
    }
}
