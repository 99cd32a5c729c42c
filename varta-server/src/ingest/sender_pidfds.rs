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
use crate::observe::descriptor_limit::has_descriptors_to_spare;

/// The length of a window, and the datagrams in it that come with pidfds, rounded up to a batch.
const WINDOW: Duration = Duration::from_millis(100);
const DATAGRAMS_PER_WINDOW: usize = 64;

/// Whether the socket passes pidfds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    /// As whoever read it before has left it.
    Unknown,
    /// As this was set.
    Set(bool),
    /// The kernel has no such option, or this process may have few descriptors.
    Never,
}

/// Whether the socket passes pidfds, and how many datagrams came in this window.
#[derive(Debug)]
pub(super) struct SenderPidfds {
    passing: Passing,
    window_ends: MonoTime,
    datagrams: usize,
}

impl SenderPidfds {
    /// For a socket that others may read until this is [asked](Self::ask) for the first time.
    pub(super) fn new() -> Self {
        let passing = if has_descriptors_to_spare() { Passing::Unknown } else { Passing::Never };
        SenderPidfds { passing, window_ends: MonoTime::START, datagrams: 0 }
    }

    /// Notes that others may have read the socket, and set it as they wanted it.
    pub(super) fn forget(&mut self) {
        if self.passing != Passing::Never {
            self.passing = Passing::Unknown;
        }
    }

    /// Whether the next datagrams of `socket` come with pidfds. `may` is false where they would find no room.
    #[inline]
    pub(super) fn ask(&mut self, socket: BorrowedFd<'_>, may: bool) -> bool {
        if self.passing == Passing::Never {
            return false;
        }
        let wanted = may && self.datagrams < DATAGRAMS_PER_WINDOW;
        if self.passing != Passing::Set(wanted) {
            // What could be set once can be set again.
            self.passing = pass_pidfds(socket, wanted).map_or(Passing::Never, |()| Passing::Set(wanted));
        }
        self.passing == Passing::Set(true)
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
        (self.passing != Passing::Never && self.datagrams >= DATAGRAMS_PER_WINDOW).then_some(self.window_ends)
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
    use crate::ingest::recvmmsg::passes_pidfds;

    #[test]
    fn what_another_reader_has_left_set_is_set_anew_before_anything_is_received() {
        let socket = UnixDatagram::unbound().unwrap();
        let (mut one, mut other) = (SenderPidfds::new(), SenderPidfds::new());
        if !one.ask(socket.as_fd(), true) {
            return; // A kernel before Linux 6.5.
        }
        // The other one receives without, as in a crowd.
        assert!(!other.ask(socket.as_fd(), false));
        one.forget();
        assert!(one.ask(socket.as_fd(), true) && passes_pidfds(socket.as_fd()));
        other.forget();
        assert!(!other.ask(socket.as_fd(), false) && !passes_pidfds(socket.as_fd()));
    }

    #[test]
    fn a_crowd_is_received_without_pidfds_until_the_window_is_over() {
        let socket = UnixDatagram::unbound().unwrap();
        let mut pidfds = SenderPidfds::new();
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
