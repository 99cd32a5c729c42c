//! The signals that exec gets, and which of them the command has got already.
//!
//! The command is in the process group of exec, so that a pipeline of a shell is one job. What the terminal sends, it
//! sends to the whole group: those signals come from the kernel, and are not passed on. What a process sends to exec
//! is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{getpgid, getpgrp, getppid, getsid};

use crate::base::inherited::reset_inherited;

/// Signals that are left to their disposition: faults of exec itself, a closed pipe, limits, and what the kernel sends
/// to a whole group in the background that writes to a terminal which does not want that. One whose command reads there
/// stops with the command, once all that was printed is shown.
const NOT_TAKEN: [Signal; 11] = [
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGPIPE,
    Signal::SIGTTOU,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGPROF,
];

/// Signals that ask a program to end.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The signals of this process, which are read and not handled.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
    /// The mask with which this process was started.
    pub(super) inherited: SigSet,
}

/// A signal that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) number: i32,
    /// Whether the kernel sent it, and no process.
    pub(super) is_from_kernel: bool,
    /// Whether this process sent it, to the whole group.
    pub(super) is_own: bool,
}

impl Signals {
    /// Blocks the signals, to be read from here. To be called before any thread is started.
    ///
    /// # Errors
    ///
    /// There is no descriptor left.
    pub(super) fn take_over() -> io::Result<Self> {
        let inherited = SigSet::thread_get_mask()?;
        reset_inherited()?;
        let mut taken = SigSet::all();
        for signal in NOT_TAKEN {
            taken.remove(signal);
        }
        taken.thread_block()?;
        let descriptor = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { descriptor, inherited })
    }

    /// The next signal that has arrived, if there is one.
    pub(super) fn next(&self) -> Option<Received> {
        loop {
            match self.descriptor.read_signal() {
                Err(Errno::EINTR) => {}
                // A read of such a descriptor has no other error.
                Err(_) | Ok(None) => return None,
                Ok(Some(info)) => {
                    return Some(Received {
                        number: i32::try_from(info.ssi_signo).unwrap_or_default(),
                        is_from_kernel: info.ssi_code == libc::SI_KERNEL,
                        is_own: info.ssi_code == libc::SI_USER && info.ssi_pid == std::process::id(),
                    });
                }
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Received {
    /// Whether the command has to be sent it. `leads_session`: a terminal that is hung up tells only the leader of its
    /// session.
    pub(super) fn is_passed_on(self, leads_session: bool) -> bool {
        let has_got_it = self.is_from_kernel || self.is_own;
        !has_got_it || (self.number == libc::SIGHUP && self.is_from_kernel && leads_session)
    }

    /// Whether it asks a program to end.
    pub(super) fn asks_to_end(self) -> bool {
        ENDING.contains(&self.number)
    }

    /// Whether the command is not wanted any more once it has ended. SIGHUP that a process sends has it read its
    /// configuration again.
    pub(super) fn ends_restarts(self) -> bool {
        self.asks_to_end() && (self.number != libc::SIGHUP || self.is_from_kernel)
    }
}

/// The signals that asked the command to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndSignals(u64);

impl EndSignals {
    pub(super) fn insert(&mut self, number: i32) {
        self.0 |= bit(number);
    }

    pub(super) fn contains(self, number: i32) -> bool {
        self.0 & bit(number) != 0
    }
}

const fn bit(number: i32) -> u64 {
    if 0 < number && number <= 64 { 1 << (number - 1) } else { 0 }
}

/// Whether this process leads its session.
pub(super) fn leads_session() -> bool {
    getsid(None) == Ok(nix::unistd::getpid())
}

/// Whether the parent is a shell that controls this process as a job, and would continue it.
pub(super) fn is_job_of_shell() -> bool {
    let parent = Some(getppid());
    getsid(parent).is_ok_and(|session| getsid(None) == Ok(session))
        && getpgid(parent).is_ok_and(|group| group != getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn from_kernel(number: i32) -> Received {
        Received { number, is_from_kernel: true, is_own: false }
    }

    const fn from_process(number: i32) -> Received {
        Received { number, is_from_kernel: false, is_own: false }
    }

    #[test]
    fn what_the_terminal_sends_reaches_the_command_by_itself() {
        for number in [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGWINCH, libc::SIGHUP] {
            assert!(!from_kernel(number).is_passed_on(false));
            assert!(from_process(number).is_passed_on(false));
        }
        assert!(from_kernel(libc::SIGHUP).is_passed_on(true));
        assert!(!from_kernel(libc::SIGINT).is_passed_on(true));
        let own = Received { number: libc::SIGWINCH, is_from_kernel: false, is_own: true };
        assert!(!own.is_passed_on(false) && !own.is_passed_on(true));
    }

    #[test]
    fn a_command_that_is_asked_to_end_is_not_started_again_and_one_that_reloads_is() {
        for number in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
            assert!(from_process(number).ends_restarts() && from_kernel(number).ends_restarts());
        }
        assert!(from_kernel(libc::SIGHUP).ends_restarts());
        assert!(from_process(libc::SIGHUP).asks_to_end() && !from_process(libc::SIGHUP).ends_restarts());
        assert!(!from_process(libc::SIGUSR1).asks_to_end());
    }

    #[test]
    fn a_set_holds_signals_of_all_numbers() {
        let mut asked = EndSignals::default();
        asked.insert(libc::SIGHUP);
        asked.insert(64);
        asked.insert(0);
        assert!(asked.contains(libc::SIGHUP) && asked.contains(64));
        assert!(!asked.contains(libc::SIGTERM) && !asked.contains(0) && !asked.contains(65));
    }
}
