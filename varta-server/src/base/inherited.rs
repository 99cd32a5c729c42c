//! What a program inherits from the one that starts it: the disposition of SIGCHLD, the signal mask, and the
//! limit of open files, which its own children are given as it was.
#![allow(unsafe_code, reason = "the disposition of a signal has no safe interface")]

use std::io;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};

/// The soft and hard limits of open files at the start of the program.
static FILES: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Gives SIGCHLD its default disposition, unblocks all signals, and notes the limit of open files.
///
/// Where SIGCHLD is ignored, the kernel reaps children and their exit status is lost; where SIGTERM is blocked,
/// nothing but SIGKILL ends the program. To be called before any thread is started: threads inherit the mask.
///
/// # Errors
///
/// None is expected.
pub fn reset_inherited() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of this program.
    unsafe { sigaction(Signal::SIGCHLD, &default)? };
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let files = getrlimit(Resource::RLIMIT_NOFILE)?;
    FILES.get_or_init(|| files);
    Ok(())
}

/// The limits of open files at the start, where the soft one has been changed since.
pub(super) fn changed_file_limits() -> Option<(rlim_t, rlim_t)> {
    let given = *FILES.get()?;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    (soft != given.0).then_some(given)
}
