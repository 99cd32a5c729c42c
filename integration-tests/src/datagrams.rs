//! Datagrams of any kind, well formed or not, for a server's socket.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use socket2::{Domain, MsgHdr, SockAddr, Socket, Type};
use varta_proto::{FRAME_LEN, crc32c};

use crate::retry::LIMIT;

/// A sender that waits for room in the queue, so that what it counts as sent does arrive.
#[derive(Debug)]
pub struct Datagrams {
    socket: Socket,
    sent: u32,
}

impl Datagrams {
    /// Connects to the socket at `path`.
    #[must_use]
    #[track_caller]
    pub fn to(path: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("there are descriptors left");
        socket.set_write_timeout(Some(LIMIT)).expect("a socket takes a timeout");
        let address = SockAddr::unix(path).expect("a server listens at this path, so it is one");
        socket.connect(&address).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Datagrams { socket, sent: 0 }
    }

    /// Sends one.
    #[track_caller]
    pub fn send(&mut self, payload: &[u8]) {
        let sent = self.socket.send(payload).expect("a server that runs makes room");
        assert_eq!(sent, payload.len(), "a datagram is sent whole");
        self.sent += 1;
    }

    /// Sends one if there is room for it.
    ///
    /// # Errors
    ///
    /// That of `send(2)`.
    #[track_caller]
    pub fn try_send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        self.socket.send(payload)?;
        self.sent += 1;
        self.socket.set_nonblocking(false).expect("a socket can be made blocking");
        Ok(())
    }

    /// Sends again and again until the queue takes no more.
    #[track_caller]
    pub fn fill_the_queue(&mut self, payload: &[u8]) {
        self.socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        loop {
            match self.socket.send(payload) {
                Ok(_) => self.sent += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.socket.set_nonblocking(false).expect("a socket can be made blocking");
    }

    /// Sends one and file descriptors along with it.
    #[track_caller]
    pub fn send_with_descriptors(&mut self, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let control = scm_rights(descriptors);
        let buffers = [IoSlice::new(payload)];
        let message = MsgHdr::new().with_buffers(&buffers).with_control(&control);
        let sent = self.socket.sendmsg(&message, 0).expect("a server that runs makes room");
        assert_eq!(sent, payload.len(), "a datagram is sent whole");
        self.sent += 1;
    }

    /// How many were sent.
    #[must_use]
    pub fn sent(&self) -> f64 {
        f64::from(self.sent)
    }
}

/// A control message that passes descriptors, see unix(7) and cmsg(3).
fn scm_rights(descriptors: &[BorrowedFd<'_>]) -> Vec<u8> {
    const ALIGNMENT: usize = size_of::<usize>();
    let header = size_of::<libc::cmsghdr>();
    let mut message = Vec::new();
    message.extend((header + size_of_val(descriptors)).to_ne_bytes());
    message.extend(libc::SOL_SOCKET.to_ne_bytes());
    message.extend(libc::SCM_RIGHTS.to_ne_bytes());
    assert_eq!(message.len(), header, "a control message begins with its length, level and type");
    for descriptor in descriptors {
        message.extend(descriptor.as_raw_fd().to_ne_bytes());
    }
    message.resize(message.len().next_multiple_of(ALIGNMENT), 0);
    message
}

/// Gives bytes the checksum that makes a frame of them, whatever else may be wrong with them.
#[must_use]
pub fn with_checksum(mut frame: [u8; FRAME_LEN]) -> [u8; FRAME_LEN] {
    let (covered, checksum) = frame.split_at_mut(FRAME_LEN - 4);
    checksum.copy_from_slice(&crc32c::checksum(covered).to_le_bytes());
    frame
}
