//! What `exec` asks of the kernel about signals and processes that has no safe interface.
#![allow(
    unsafe_code,
    reason = "dispositions of signals, and a change between fork and exec, have no safe interface"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::pty::Winsize;
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

/// What begins a piece that was printed to a terminal of [`tell_of_modes`].
/// `TIOCPKT_DATA`.
pub(super) const OUTPUT: u8 = 0;
/// What is in the byte that says that its modes were set.
/// `TIOCPKT_IOCTL`.
pub(super) const MODES: u8 = 64;

/// The other end of a new terminal, which does not become the controlling terminal of anybody.
///
/// # Errors
///
/// The descriptor is none of `/dev/ptmx`, or there is no descriptor left.
pub(super) fn other_end(terminal: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes two integers; memory is not involved.
    let end = Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the call has made the descriptor, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(end) })
}

/// Has each piece that is read from a terminal begin with a byte, which is [`OUTPUT`], or says with [`MODES`] that modes
/// were set at the other end.
///
/// # Errors
///
/// The descriptor is none of `/dev/ptmx`.
pub(super) fn tell_of_modes(terminal: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the call reads one integer, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCPKT, &raw const on) })?;
    Ok(())
}

/// The size of a terminal.
///
/// # Errors
///
/// It is none, or hung up.
pub(super) fn window_size(terminal: BorrowedFd<'_>) -> io::Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes the structure, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets the size of a terminal.
///
/// # Errors
///
/// It is none, or hung up.
pub(super) fn set_window_size(terminal: BorrowedFd<'_>, size: Winsize) -> io::Result<()> {
    // SAFETY: the call reads the structure, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
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

/// Sends a signal to the process group of this process, itself included.
pub(super) fn tell_group(number: libc::c_int) {
    // SAFETY: takes two integers; memory is not involved. It reaches at least this process.
    unsafe { libc::kill(0, number) };
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
