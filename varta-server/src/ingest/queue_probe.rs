//! Queries a listener's socket from another task: whether datagrams wait, and how many the kernel has
//! dropped.
//!
//! The only file with the unsafe code for `SO_MEMINFO`.
#![allow(unsafe_code, reason = "getsockopt has no safe interface for SO_MEMINFO")]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError, RwLock};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use socket2::SockRef;

use crate::domain::beat::Transport;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::udp::enlarge_queue;

/// The length of the array that `SO_MEMINFO` returns, in words of 32 bits (`linux/sock_diag.h`).
const MEMINFO_WORDS: usize = 9;
const SK_MEMINFO_DROPS: usize = 8;

/// A second descriptor of a listener's socket, and of those that took its place.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The oldest first; one but where the file of a Unix socket was removed.
    sockets: RwLock<VecDeque<OwnedFd>>,
    endpoint: Endpoint,
    /// The datagrams that the queue of a Unix socket holds; `None` for a UDP socket, and where it is not known.
    unix_queue: Option<usize>,
    /// The drops that were counted before, for the metrics and for the tracker.
    published: Mutex<u32>,
    noticed: Mutex<u32>,
}

impl Probe {
    pub(super) fn new(socket: OwnedFd, endpoint: Endpoint, unix_queue: Option<usize>) -> Self {
        Probe {
            sockets: RwLock::new(VecDeque::from([socket])),
            endpoint,
            unix_queue,
            published: Mutex::default(),
            noticed: Mutex::default(),
        }
    }

    /// Where the listener reads.
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The transport of the socket.
    pub(crate) const fn transport(&self) -> Transport {
        self.endpoint.transport()
    }

    /// The datagrams that the queue of a Unix socket holds; `None` for a UDP socket, and where it is not known.
    pub(super) const fn unix_queue(&self) -> Option<usize> {
        self.unix_queue
    }

    /// The size of the receive buffer of a UDP socket in bytes, as the kernel counts them.
    pub(super) fn udp_queue(&self) -> Option<usize> {
        self.endpoint.address()?;
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        SockRef::from(sockets.front()?).recv_buffer_size().ok()
    }

    /// Asks for a receive buffer of `bytes` for a UDP socket.
    pub(super) fn resize(&self, bytes: usize) -> io::Result<()> {
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        match sockets.front() {
            Some(socket) if self.endpoint.address().is_some() => enlarge_queue(&SockRef::from(socket), bytes),
            Some(_) | None => Ok(()),
        }
    }

    /// Has the kernel refuse what is sent to a Unix socket from this moment on. What it holds can be read.
    pub(super) fn refuse_more(&self) {
        for socket in self.sockets.read().unwrap_or_else(PoisonError::into_inner).iter() {
            // It fails for no Unix socket, and without it what is sent before the end of the socket is lost with it.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
        }
    }

    /// A further descriptor of a socket that has no file, and the option that it belongs to; `None` for one that has a
    /// file.
    ///
    /// # Errors
    ///
    /// Descriptors are short.
    pub(crate) fn without_file(&self) -> io::Result<Option<(&'static str, OwnedFd)>> {
        let option = match self.transport() {
            Transport::Udp => "udp",
            Transport::SecureUdp => "secure-udp",
            Transport::Notify if self.endpoint.is_abstract() => "notify-socket",
            Transport::Unix | Transport::Shm | Transport::Notify => return Ok(None),
        };
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        sockets.back().map(OwnedFd::try_clone).transpose().map(|socket| Some((option, socket?)))
    }

    /// Whether a datagram waits to be read, by one `poll(2)` that does not block; false when the call fails.
    pub(crate) fn has_unread(&self) -> bool {
        self.sockets.read().unwrap_or_else(PoisonError::into_inner).iter().any(has_unread)
    }

    /// Takes one more socket, if wanted in the place of the oldest.
    pub(super) fn add(&self, socket: OwnedFd, replaces_oldest: bool) {
        let mut sockets = self.sockets.write().unwrap_or_else(PoisonError::into_inner);
        if replaces_oldest {
            sockets.pop_front();
        }
        sockets.push_back(socket);
    }

    /// The number of datagrams that the kernel has dropped since the last call, for the metrics.
    pub(super) fn take_drops(&self) -> u32 {
        self.drops_since(&self.published)
    }

    /// Whether the kernel has dropped datagrams since the last call, for the tracker.
    pub(crate) fn has_new_drops(&self) -> bool {
        self.drops_since(&self.noticed) > 0
    }

    /// None where the kernel does not tell, which is reported at the start.
    fn drops_since(&self, seen: &Mutex<u32>) -> u32 {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(drops) = self.kernel_drops() else { return 0 };
        drops.wrapping_sub(mem::replace(&mut *seen, drops))
    }

    /// The number of datagrams that the kernel has dropped since the first socket was made, because its receive
    /// buffer was full. Wraps around at 2³². The kernel drops none at a Unix socket, so that it does not matter
    /// which of several is asked.
    ///
    /// # Errors
    ///
    /// What `getsockopt(2)` returns.
    pub(super) fn kernel_drops(&self) -> io::Result<u32> {
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = sockets.front() else { return Ok(0) };
        let mut words = [0_u32; MEMINFO_WORDS];
        let mut length = libc::socklen_t::try_from(mem::size_of_val(&words)).map_err(io::Error::other)?;
        // SAFETY: the pointer and the length are those of `words`, for which any bytes are valid.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                words.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(words[SK_MEMINFO_DROPS]) } else { Err(io::Error::last_os_error()) }
    }
}

fn has_unread(socket: &OwnedFd) -> bool {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn what_the_kernel_throws_away_is_known_to_the_datagram() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Udp(receiver.local_addr().unwrap());
        let probe = Probe::new(receiver.try_clone().unwrap().into(), endpoint, None);
        assert!(!probe.has_unread());
        assert_eq!(probe.kernel_drops().unwrap(), 0);
        // The kernel rounds this up to its minimum.
        socket2::SockRef::from(&receiver).set_recv_buffer_size(1).unwrap();
        const SENT: u32 = 100;
        for _ in 0..SENT {
            sender.send_to(&[0; 32], receiver.local_addr().unwrap()).unwrap();
        }
        assert!(probe.has_unread());
        receiver.set_nonblocking(true).unwrap();
        let received = (0..).take_while(|_| receiver.recv(&mut [0; 32]).is_ok()).count();
        assert!(received > 0 && !probe.has_unread());
        let dropped = SENT - u32::try_from(received).unwrap();
        assert_eq!((probe.take_drops(), probe.take_drops()), (dropped, 0));
        assert!(probe.has_new_drops() && !probe.has_new_drops());
    }

    #[test]
    fn who_sends_to_a_unix_socket_that_is_about_to_close_is_refused_and_what_came_before_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        sender.send(b"before").unwrap();
        let probe = Probe::new(receiver.try_clone().unwrap().into(), Endpoint::Unix(path), None);
        probe.refuse_more();
        assert_eq!(sender.send(b"after").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        receiver.set_nonblocking(true).unwrap();
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 6);
        assert!(receiver.recv(&mut [0; 8]).is_err());
    }
}
