//! A Unix socket with a queue of a length of our own.
//!
//! The kernel gives a Unix datagram socket the length that `net.unix.max_dgram_qlen` has in the network
//! namespace in which the socket is made: 10 unless somebody raised it. The path of a socket belongs to no
//! network namespace, so a socket that is made in another one is reached by the same path and works as any
//! other. A thread that may make a network namespace (`CAP_SYS_ADMIN`) sets the length there, makes the socket
//! and ends; no setting of the host changes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::panic;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::PassCred;

use crate::base::error::Error;
use crate::base::given_sockets::GivenSocket;
use crate::base::{SocketFile, SocketFiles, SocketOptions};
use crate::ingest::notify::NotifyAddress;

const QUEUE_FILE: &str = "/proc/sys/net/unix/max_dgram_qlen";

/// A bound socket, its file, and the datagrams that its queue holds; `None` where that cannot be read.
type Bound = (UnixDatagram, SocketFile, Option<usize>);

/// Binds a Unix socket whose queue holds `wanted` datagrams, or as many as the host gives it where this
/// process may not have more.
///
/// # Errors
///
/// As for [`SocketFile::bind`].
pub(super) fn bind(options: &SocketOptions, wanted: usize, files: &SocketFiles) -> Result<Bound, Error> {
    if queue_length().is_none_or(|length| length < wanted)
        && let Some(bound) = bind_in_own_namespace(options, wanted, files)
    {
        return bound;
    }
    let (socket, file) = SocketFile::bind(options, files)?;
    Ok((socket, file, queue_length()))
}

/// Takes a Unix socket that was bound before. Its queue is as long as it was made: as those are that the host
/// makes, as far as is known.
///
/// # Errors
///
/// As for [`SocketFile::adopt`].
pub(super) fn adopt(
    given: GivenSocket,
    options: &SocketOptions,
    files: &SocketFiles,
) -> Result<Bound, Error> {
    let queue = given.queue().or_else(queue_length);
    let (socket, file) = SocketFile::adopt(given, &options.path, files)?;
    Ok((OwnedFd::from(socket).into(), file, queue))
}

/// Binds a socket with an abstract name, which is one of the server's network namespace: its queue has the length
/// that the host gives.
pub(super) fn bind_abstract(address: &NotifyAddress) -> Result<(OwnedFd, Option<usize>), Error> {
    let failed = |source| Error::Listener { endpoint: format!("notify:{address}"), action: "bind", source };
    let name = address.abstract_address().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let socket = UnixDatagram::bind_addr(&name).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    setsockopt(&socket, PassCred, &true).map_err(|errno| failed(errno.into()))?;
    Ok((socket.into(), queue_length()))
}

/// `None` when this process may not make a network namespace or set the length there.
fn bind_in_own_namespace(
    options: &SocketOptions,
    wanted: usize,
    files: &SocketFiles,
) -> Option<Result<Bound, Error>> {
    let work = || {
        enter_own_namespace(wanted).ok()?;
        let bound = SocketFile::bind(options, files);
        Some(bound.map(|(socket, file)| (socket, file, queue_length())))
    };
    // The namespace is that of the thread, and lasts as long as the socket.
    thread::scope(|scope| {
        let made = thread::Builder::new().name("varta-socket".to_owned()).spawn_scoped(scope, work).ok()?;
        made.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

/// Puts the calling thread into a network namespace of its own with this length of queues.
fn enter_own_namespace(length: usize) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    fs::write(QUEUE_FILE, length.saturating_sub(1).to_string())
}

/// The datagrams that the queue of a new Unix socket holds: one more than `net.unix.max_dgram_qlen` in the
/// network namespace of the calling thread.
fn queue_length() -> Option<usize> {
    let length: usize = fs::read_to_string(QUEUE_FILE).ok()?.trim().parse().ok()?;
    Some(length.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// Sends from several sockets, because each of them may have some 280 datagrams on the way, until no more
    /// are taken.
    fn fill(path: &std::path::Path) -> usize {
        let mut sent = 0;
        loop {
            let sender = UnixDatagram::unbound().unwrap();
            sender.connect(path).unwrap();
            sender.set_nonblocking(true).unwrap();
            let before = sent;
            while let Ok(length) =
                sender.send(&[0; 32]).map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock))
            {
                sent += usize::from(length == 32);
            }
            if sent == before {
                return sent;
            }
        }
    }

    #[test]
    fn the_queue_holds_as_many_as_were_wanted_or_as_the_host_gives_and_the_hosts_setting_stays() {
        let of_host = queue_length();
        let wanted = of_host.map_or(700, |length| length + 700);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("varta.sock");
        let options = SocketOptions { path: path.clone(), is_default: false, mode: 0o600, group: None };
        let (socket, file, length) = bind(&options, wanted, &SocketFiles::default()).unwrap();
        assert!(length == Some(wanted) || length == of_host, "{length:?}");
        if let Some(length) = length {
            assert_eq!(fill(&path), length);
            socket.set_nonblocking(true).unwrap();
            assert_eq!((0..).take_while(|_| socket.recv(&mut [0; 64]).is_ok()).count(), length);
        }
        assert_eq!(queue_length(), of_host);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_cannot_be_bound_is_refused_as_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("varta.sock");
        let options = SocketOptions { path: path.clone(), is_default: false, mode: 0o600, group: None };
        let _first = bind(&options, 700, &SocketFiles::default()).unwrap();
        assert!(matches!(bind(&options, 700, &SocketFiles::default()), Err(Error::SocketInUse { .. })));
        assert!(path.exists());
    }
}
