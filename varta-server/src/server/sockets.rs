//! The sockets on which agents beat: binds them, and logs where they are.

use std::time::Duration;

use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::base::time::millis;
use crate::ingest::check::CheckSocket;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::listener::Listener;
use crate::ingest::{IngestOptions, Keyring, ShmPages};

/// Binds the sockets on which agents beat, or takes given ones: Unix sockets first.
pub(super) fn bind_sockets(
    options: &IngestOptions,
    pages: &ShmPages,
    keyring: Option<&Keyring>,
    given: &GivenSockets,
) -> Result<(Vec<Listener>, Vec<CheckSocket>), Error> {
    let mut listeners = Vec::new();
    for socket in &options.sockets {
        let (allowed, pages) = (options.allowed.clone(), pages.clone());
        listeners.push(Listener::unix(socket, options.socket_queue, allowed, pages, given)?);
    }
    for address in &options.udp {
        listeners.push(Listener::udp(&options.udp_socket(*address), given)?);
    }
    for (address, keyring) in options.secure_udp.iter().zip(keyring.into_iter().cycle()) {
        listeners.push(Listener::secure_udp(&options.udp_socket(*address), keyring.clone(), given)?);
    }
    let check = |socket| CheckSocket::beside(socket, &options.allowed, given);
    let checks = options.sockets.iter().filter_map(check);
    Ok((listeners, checks.collect()))
}

/// Logs a listening socket: the first lines of the log.
pub(super) fn log_endpoint(endpoint: &Endpoint, stall_after: Duration) {
    tracing::info!(
        target: "varta::server",
        path = match endpoint {
            Endpoint::Unix(path) => Some(tracing::field::display(path.display())),
            Endpoint::Udp(_) | Endpoint::SecureUdp(_) => None,
        },
        address = endpoint.address().map(tracing::field::display),
        transport = endpoint.transport().as_str(),
        stall_after_ms = millis(stall_after),
        "listening on {endpoint}; an agent is stalled after {stall_after:?} of silence"
    );
}
