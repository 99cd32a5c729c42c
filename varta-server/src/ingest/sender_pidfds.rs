//! Asks the kernel for a pidfd of each sender, while that costs little.
//!
//! The pidfd that comes with a datagram (`SO_PASSPIDFD`, from Linux 6.5 on) refers to the process that sent it,
//! even if that has been reaped since (from Linux 6.16 on), and then it has the exit status: all that is left
//! of a process that beats once and ends.
//!
//! It costs up to four times as much as the receiving of the datagram, or half as much again while another
//! pidfd of the process is open; so a crowd is received without.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::ingest::recvmmsg::pass_pidfds;

/// The length of a window, and the datagrams in it that come with pidfds, rounded up to a batch.
const WINDOW: Duration = Duration::from_millis(100);
const DATAGRAMS_PER_WINDOW: usize = 64;

/// Whether the socket passes pidfds, and how many datagrams came in this window.
#[derive(Debug)]
pub(super) struct SenderPidfds {
    /// `None` where the kernel has no such option.
    passes: Option<bool>,
    window_ends: MonoTime,
    datagrams: usize,
}

impl SenderPidfds {
    /// Asks for the pidfds of those who send to `socket`.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Self {
        let passes = pass_pidfds(socket, true).ok().map(|()| true);
        SenderPidfds { passes, window_ends: MonoTime::START, datagrams: 0 }
    }

    /// Whether the next datagrams of `socket` come with pidfds. `may` is false where they would find no room.
    #[inline]
    pub(super) fn ask(&mut self, socket: BorrowedFd<'_>, may: bool) -> bool {
        let Some(passes) = self.passes else { return false };
        let wanted = may && self.datagrams < DATAGRAMS_PER_WINDOW;
        if passes != wanted {
            // What could be set once can be set again.
            self.passes = pass_pidfds(socket, wanted).ok().map(|()| wanted);
        }
        self.passes == Some(true)
    }

    /// Notes a batch of datagrams.
    #[inline]
    pub(super) fn note(&mut self, received: usize, at: MonoTime) {
        if at >= self.window_ends {
            self.begin(at);
        }
        self.datagrams += received;
    }

    /// When pidfds are asked for again; `None` while they are.
    #[inline]
    pub(super) fn resumes_at(&self) -> Option<MonoTime> {
        (self.passes.is_some() && self.datagrams >= DATAGRAMS_PER_WINDOW).then_some(self.window_ends)
    }

    /// Begins a window.
    pub(super) fn begin(&mut self, at: MonoTime) {
        self.window_ends = at + WINDOW;
        self.datagrams = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_crowd_is_received_without_pidfds_until_the_window_is_over() {
        let socket = UnixDatagram::unbound().unwrap();
        let mut pidfds = SenderPidfds::of(socket.as_fd());
        let at = MonoTime::from_secs(1);
        let has_them = pidfds.ask(socket.as_fd(), true);
        pidfds.note(DATAGRAMS_PER_WINDOW - 1, at);
        assert_eq!((pidfds.ask(socket.as_fd(), true), pidfds.resumes_at()), (has_them, None));
        assert!(!pidfds.ask(socket.as_fd(), false), "no room");
        pidfds.note(1, at + WINDOW / 2);
        assert!(!pidfds.ask(socket.as_fd(), true), "a crowd");
        assert_eq!(pidfds.resumes_at(), has_them.then_some(at + WINDOW));
        pidfds.begin(at + WINDOW);
        assert_eq!((pidfds.ask(socket.as_fd(), true), pidfds.resumes_at()), (has_them, None));
        pidfds.note(DATAGRAMS_PER_WINDOW, at + WINDOW);
        pidfds.note(1, at + WINDOW * 2);
        assert_eq!(
            (pidfds.ask(socket.as_fd(), true), pidfds.resumes_at()),
            (has_them, None),
            "another window"
        );
    }
}
