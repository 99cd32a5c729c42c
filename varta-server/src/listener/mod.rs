//! Listeners: one task for each socket. A listener reads what has come, checks who sent it and whether it is a frame,
//! and hands on what is good. It knows sockets and nothing of agents.

mod batch;
mod socket_file;
mod unix;

pub use self::socket_file::SocketOptions;
pub use self::unix::AllowedSenders;
pub(crate) use self::unix::UnixListener;

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::beat::ReceivedBeat;

/// How many batches may wait for the tracker. With 64 beats in each that is the work of about a millisecond. A
/// listener that finds no place waits, and does not read meanwhile: then the kernel's queue fills, which senders see.
pub(crate) const INBOX_BATCHES: usize = 32;

/// Tells whether something waits to be read on a listener's socket.
#[derive(Debug)]
pub(crate) struct Unread(OwnedFd);

impl Unread {
    /// One system call, which does not wait. When it cannot be told, nothing is there to wait for.
    pub(crate) fn is_there(&self) -> bool {
        let mut sockets = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// Beats that were read together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) beats: Vec<ReceivedBeat>,
}
