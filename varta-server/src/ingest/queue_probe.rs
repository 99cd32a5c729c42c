//! Queries a listener's socket from another task: whether datagrams wait, and how many the kernel has
//! dropped.
//!
//! The only file with the unsafe code for `SO_MEMINFO`.
#![allow(unsafe_code, reason = "getsockopt has no safe interface for SO_MEMINFO")]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{PoisonError, RwLock};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::domain::beat::Transport;

/// The length of the array that `SO_MEMINFO` returns, in words of 32 bits (`linux/sock_diag.h`).
const MEMINFO_WORDS: usize = 9;
const SK_MEMINFO_DROPS: usize = 8;

/// A second descriptor of a listener's socket, and of those that took its place.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The oldest first; one but where the file of a Unix socket was removed.
    sockets: RwLock<VecDeque<OwnedFd>>,
    transport: Transport,
}

impl Probe {
    pub(super) fn new(socket: OwnedFd, transport: Transport) -> Self {
        Probe { sockets: RwLock::new(VecDeque::from([socket])), transport }
    }

    /// The transport of the socket.
    pub(crate) const fn transport(&self) -> Transport {
        self.transport
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

    /// The number of datagrams that the kernel has dropped since the first socket was made, because its receive
    /// buffer was full. Wraps around at 2³². The kernel drops none at a Unix socket, so that it does not matter
    /// which of several is asked.
    ///
    /// # Errors
    ///
    /// What `getsockopt(2)` returns.
    pub(crate) fn kernel_drops(&self) -> io::Result<u32> {
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

    use super::*;

    #[test]
    fn what_the_kernel_throws_away_is_known_to_the_datagram() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let probe = Probe::new(receiver.try_clone().unwrap().into(), Transport::Udp);
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
        assert_eq!(probe.kernel_drops().unwrap(), SENT - u32::try_from(received).unwrap());
    }
}
