//! A bound socket that agents or services speak to, of whichever kind.

use std::os::fd::OwnedFd;

use crate::base::error::Error;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::held_socket::HeldSocket;
use crate::ingest::listener::{Intake, Listener};
use crate::ingest::notify::NotifyListener;
use crate::ingest::queue_probe::Probe;

/// A socket for beats, or one for notifications.
#[derive(Debug)]
pub(in crate::ingest) enum Reader {
    Beats(Listener),
    Notify(Box<NotifyListener>),
}

impl Reader {
    pub(in crate::ingest) fn endpoint(&self) -> &Endpoint {
        match self {
            Reader::Beats(listener) => listener.endpoint(),
            Reader::Notify(listener) => listener.endpoint(),
        }
    }

    /// The file of a Unix socket that has one.
    pub(in crate::ingest) fn file(&self) -> Option<&HeldSocket> {
        match self {
            Reader::Beats(listener) => listener.file(),
            Reader::Notify(listener) => listener.file(),
        }
    }

    /// A second descriptor of the socket.
    ///
    /// # Errors
    ///
    /// The process is out of file descriptors.
    pub(in crate::ingest) fn duplicate(&self) -> Result<OwnedFd, Error> {
        match self {
            Reader::Beats(listener) => listener.duplicate(),
            Reader::Notify(listener) => listener.duplicate(),
        }
    }

    /// A second descriptor, for readiness and drop counts.
    ///
    /// # Errors
    ///
    /// The process is out of file descriptors.
    pub(in crate::ingest) fn probe(&self) -> Result<Probe, Error> {
        match self {
            Reader::Beats(listener) => listener.probe(),
            Reader::Notify(listener) => {
                Ok(Probe::new(listener.duplicate()?, listener.endpoint().clone(), listener.queue()))
            }
        }
    }

    /// Reads until it is to stop. See [`Listener::run`].
    ///
    /// # Errors
    ///
    /// The socket cannot be read.
    pub(in crate::ingest) async fn run(self, intake: Intake) -> Result<(), Error> {
        match self {
            Reader::Beats(listener) => listener.run(intake).await,
            Reader::Notify(listener) => listener.run(intake).await,
        }
    }
}
