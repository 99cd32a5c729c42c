//! The other side of a check-up: what a running server says of itself, as the command reads it.

use std::path::Path;

use serde::Deserialize;

use crate::base::error::Error;
use crate::services::maintenance::client::send_request;
use crate::services::maintenance::protocol::Request;

/// What a server says of itself.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Examination {
    pub(crate) version: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) ready: bool,
    pub(crate) faults: Vec<String>,
    pub(crate) uid: u32,
    pub(crate) state_dir: Option<String>,
    /// As `HOST:PORT`.
    pub(crate) alertmanagers: Vec<String>,
    pub(crate) sockets: Listening,
    /// In the text format of Prometheus, without those of single agents.
    pub(crate) metrics: String,
    /// Agents that beat seldom for their deadline.
    pub(crate) seldom: Told<Seldom>,
    /// Agents whose beats are lost.
    pub(crate) lossy: Told<Lossy>,
}

/// The sockets at which it listens.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Listening {
    /// Paths of sockets in the file system.
    pub(crate) unix: Vec<String>,
}

/// Agents of which something is told.
#[derive(Debug, Deserialize)]
pub(crate) struct Told<T> {
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) first: Vec<T>,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Told { count: 0, first: Vec::new() }
    }
}

/// An agent that beats seldom.
#[derive(Debug, Deserialize)]
pub(crate) struct Seldom {
    pub(crate) agent: String,
    pub(crate) interval_ms: u64,
    pub(crate) stall_after_ms: u64,
}

/// An agent whose beats are lost.
#[derive(Debug, Deserialize)]
pub(crate) struct Lossy {
    pub(crate) agent: String,
    pub(crate) lost: u64,
    pub(crate) beats: u64,
}

/// Asks the server behind this control socket.
///
/// # Errors
///
/// There is no answer, or one that makes no sense.
pub(crate) fn examine(path: &Path) -> Result<Examination, Error> {
    let answer = send_request(path, &Request::Examine)?;
    Examination::deserialize(&answer.status.unwrap_or_default()).map_err(|fault| {
        Error::file(path, format!("the answer makes no sense: {fault}; is this the server's version?"))
    })
}
