//! Handles that beat through a transport of the program's own.

use std::io;

use super::settings::Builder;
use crate::agent::Varta;
use crate::transport::BeatTransport;

/// Where a [`Builder`] gets its transport from: the one that [`Builder::transport`] was given.
#[derive(Debug)]
pub struct CustomTransport<T>(T);

impl<S> Builder<S> {
    /// Sends through `transport` and not through a socket that the builder connects.
    pub fn transport<T: BeatTransport>(self, transport: T) -> Builder<CustomTransport<T>> {
        Builder { settings: self.settings, source: CustomTransport(transport) }
    }
}

impl<T: BeatTransport> Builder<CustomTransport<T>> {
    /// Makes the handle, of a transport that is ready.
    ///
    /// # Errors
    ///
    /// A setting cannot be. The message says which and why.
    pub fn connect(self) -> io::Result<Varta<T>> {
        self.settings.build(Ok(self.source.0))
    }
}
