//! Handles with a transport of the program's own.

use std::io;

use super::settings::Builder;
use crate::agent::Varta;
use crate::transport::BeatTransport;

/// The source of a [`Builder`]'s transport: the argument of [`Builder::transport`].
#[derive(Debug)]
pub struct CustomTransport<T>(T);

impl<S> Builder<S> {
    /// Sends through `transport` instead of a socket that the builder connects.
    pub fn transport<T: BeatTransport>(self, transport: T) -> Builder<CustomTransport<T>> {
        Builder { settings: self.settings, source: CustomTransport(transport) }
    }
}

impl<T: BeatTransport> Builder<CustomTransport<T>> {
    /// Creates the handle.
    ///
    /// # Errors
    ///
    /// A setting is invalid. The message says which and why.
    pub fn connect(self) -> io::Result<Varta<T>> {
        self.settings.build(Ok(self.source.0))
    }
}
