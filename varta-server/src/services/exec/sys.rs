//! What `exec` asks of the kernel about signals and processes that has no safe interface.
#![allow(
    unsafe_code,
    reason = "dispositions of signals, and a change between fork and exec, have no safe interface"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{getpid, getppid};

/// Gives a command the signal mask with which exec was started, and has it killed when exec is: who kills exec with
/// SIGKILL means the command.
///
/// To be started by the main thread: the kernel takes the end of the thread that started it for that of exec.
pub(super) fn prepare(command: &mut Command, mask: SigSet) {
    let parent = std::process::id();
    let change = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before that.
        if getppid().as_raw().unsigned_abs() != parent {
            return Err(Errno::ESRCH.into());
        }
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes three system calls, and allocates nothing.
    unsafe { command.pre_exec(change) };
}

/// How many bytes a pipe holds.
///
/// # Errors
///
/// The descriptor is no pipe.
pub(super) fn bytes_in(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut length: libc::c_int = 0;
    // SAFETY: the call writes one integer, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut length) })?;
    Ok(usize::try_from(length).unwrap_or(0))
}

/// Ends this process by a signal, without a core file, which would be one of exec. Returns if the signal does not
/// end it, as in process 1 of a namespace.
pub(super) fn die_by(number: libc::c_int) {
    // SIGKILL, and a signal that leaves no core, need none of it; what fails changes only how the end looks.
    let _ = prctl::set_dumpable(false);
    let _ = raise_default(number);
}

/// Stops this process as job control does, until it is continued. Does nothing where no shell would continue it: the
/// kernel discards this signal in a group whose parents are all in other sessions.
///
/// # Errors
///
/// None is expected.
pub(super) fn stop_self() -> io::Result<()> {
    raise_default(libc::SIGTSTP)
}

/// Sends this process a signal with its default disposition, and lets it through.
fn raise_default(number: libc::c_int) -> io::Result<()> {
    // SAFETY: the default disposition runs no code of this program.
    let former = unsafe { libc::signal(number, libc::SIG_DFL) };
    // SIGKILL and SIGSTOP have no other, and are refused.
    if former == libc::SIG_ERR && ![libc::SIGKILL, libc::SIGSTOP].contains(&number) {
        return Err(io::Error::last_os_error());
    }
    // Sent while it is blocked, so that it is one with another that may be pending, and not a second after it.
    let own = getpid().as_raw();
    // SAFETY: takes two integers; memory is not involved.
    let sent = unsafe { libc::kill(own, number) };
    Errno::result(sent)?;
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&set_of(number)), Some(&mut before))?;
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(())
}

/// The set of one signal, which may be a real-time one.
fn set_of(number: libc::c_int) -> SigSet {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call writes the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialized; a number that is no signal leaves it empty.
    unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
    // SAFETY: the set is initialized.
    let set = unsafe { set.assume_init() };
    // SAFETY: the set is one that the C library has made.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}
