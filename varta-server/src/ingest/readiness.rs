//! A socket that the runtime watches, and how a batch is read from it without asking the kernel what is known already.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};

use crate::ingest::recvmmsg::{BATCH, ReceiveBuffer};

/// A socket that the runtime watches.
pub(super) enum Watched {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Watched {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Watched::Unix(socket) => socket.readable().await,
            Watched::Udp(socket) => socket.readable().await,
        }
    }

    /// Calls `receive` if the socket may be readable; when it would block, the socket is not, until more arrives.
    fn try_io(&self, receive: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Watched::Unix(socket) => socket.try_io(Interest::READABLE, receive),
            Watched::Udp(socket) => socket.try_io(Interest::READABLE, receive),
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Watched::Unix(socket) => socket.as_fd(),
            Watched::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Takes what is waiting, at most a batch, whatever the runtime knows of it; 0 when nothing is.
pub(super) fn receive_now(
    socket: &Watched,
    buffer: &mut ReceiveBuffer,
    takes_descriptors: bool,
) -> io::Result<usize> {
    match buffer.receive(socket.as_fd(), takes_descriptors) {
        Err(error) if is_nothing(&error) => Ok(0),
        received => received,
    }
}

/// Takes what is waiting, at most a batch; 0 when nothing is.
pub(super) fn receive(
    socket: &Watched,
    buffer: &mut ReceiveBuffer,
    takes_descriptors: bool,
) -> io::Result<usize> {
    let mut received = 0;
    let result = socket.try_io(|| {
        received = buffer.receive(socket.as_fd(), takes_descriptors)?;
        // A batch that is not full has emptied the queue. To ask the kernel once more, only to hear that, would be the
        // dearest part of a small batch; what arrives from here on makes the socket ready anew.
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
