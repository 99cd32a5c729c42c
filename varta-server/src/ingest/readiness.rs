//! Non-blocking batch receive on a socket that is registered with the runtime, with as few system calls as
//! possible.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};

use crate::ingest::recvmmsg::{BATCH, Passed, ReceiveBuffer};

/// A socket that is registered with the runtime.
pub(super) enum AsyncSocket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl AsyncSocket {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            AsyncSocket::Unix(socket) => socket.readable().await,
            AsyncSocket::Udp(socket) => socket.readable().await,
        }
    }

    /// Calls `receive` if the socket may be readable. `WouldBlock` clears the readiness until more arrives.
    fn try_io(&self, receive: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            AsyncSocket::Unix(socket) => socket.try_io(Interest::READABLE, receive),
            AsyncSocket::Udp(socket) => socket.try_io(Interest::READABLE, receive),
        }
    }
}

impl AsFd for AsyncSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            AsyncSocket::Unix(socket) => socket.as_fd(),
            AsyncSocket::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Receives at most one batch regardless of the runtime's readiness; 0 when nothing waits.
pub(super) fn receive_now(
    socket: &AsyncSocket,
    buffer: &mut ReceiveBuffer,
    passed: Passed,
) -> io::Result<usize> {
    match buffer.receive(socket.as_fd(), passed) {
        Err(error) if is_nothing(&error) => Ok(0),
        received => received,
    }
}

/// Receives at most one batch; 0 when nothing waits.
pub(super) fn receive(socket: &AsyncSocket, buffer: &mut ReceiveBuffer, passed: Passed) -> io::Result<usize> {
    let mut received = 0;
    let result = socket.try_io(|| {
        received = buffer.receive(socket.as_fd(), passed)?;
        // A batch that is not full has emptied the queue. A second call that only returns `WouldBlock` would
        // be the most expensive part of a small batch; whatever arrives from here on sets the readiness
        // again.
        if received < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Err(error) if is_nothing(&error) => Ok(received),
        other => other.map(|()| received),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
