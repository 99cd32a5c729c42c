//! How a command ended, and what that means.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::services::exec::signals::EndSignals;

/// The exit status when the program is not there, as of sh(1) and env(1).
pub(super) const NOT_FOUND: u8 = 127;
/// The exit status when the program is there and cannot be run.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// The exit status when exec itself failed, as of env(1) and timeout(1).
pub(super) const OWN_FAILURE: u8 = 125;
/// A shell gives the number of the signal above this one, and so do programs that handle a signal.
const ABOVE_SIGNALS: i32 = 128;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Exited(u8),
    Signalled(i32),
}

impl Ending {
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(u8::try_from(code).unwrap_or(OWN_FAILURE)),
            (None, Some(signal)) => Ending::Signalled(signal),
            (None, None) => Ending::Exited(OWN_FAILURE),
        }
    }

    /// Whether the command has done well: it says so, or it was asked to end by a signal and did by that signal.
    ///
    /// A program may handle the signal and exit with its number above 128, as a JVM does.
    pub(super) fn is_success(self, success_exit_codes: &[u8], asked: EndSignals) -> bool {
        match self {
            Ending::Exited(code) => {
                code == 0
                    || success_exit_codes.contains(&code)
                    || asked.contains(i32::from(code) - ABOVE_SIGNALS)
            }
            Ending::Signalled(signal) => asked.contains(signal),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exited with status {code}"),
            Ending::Signalled(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
        }
    }
}

/// The exit status for a program that cannot be started.
pub(super) fn start_failure(error: &io::Error) -> u8 {
    match error.raw_os_error() {
        Some(libc::ENOENT) => NOT_FOUND,
        // What the kernel says of the file, or of the way to it.
        Some(
            libc::EACCES
            | libc::EPERM
            | libc::ENOEXEC
            | libc::EISDIR
            | libc::ENOTDIR
            | libc::ELOOP
            | libc::ETXTBSY
            | libc::ELIBBAD
            | libc::ENAMETOOLONG
            | libc::E2BIG
            | libc::EINVAL,
        ) => NOT_EXECUTABLE,
        _ => OWN_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_is_what_the_command_or_who_asked_it_to_end_says() {
        let (mut term, none) = (EndSignals::default(), EndSignals::default());
        term.insert(libc::SIGTERM);
        assert!(Ending::Exited(0).is_success(&[], none));
        assert!(!Ending::Exited(3).is_success(&[], term));
        assert!(Ending::Exited(3).is_success(&[3, 75], none));
        assert!(Ending::Signalled(libc::SIGTERM).is_success(&[], term));
        assert!(Ending::Exited(143).is_success(&[], term));
        assert!(!Ending::Exited(143).is_success(&[], none));
        assert!(!Ending::Signalled(libc::SIGTERM).is_success(&[], none));
        assert!(!Ending::Signalled(libc::SIGKILL).is_success(&[], term));
        assert!(!Ending::Signalled(libc::SIGSEGV).is_success(&[139], none));
    }

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(Ending::of(ExitStatus::from_raw(3 << 8)).to_string(), "exited with status 3");
        assert_eq!(Ending::of(ExitStatus::from_raw(libc::SIGSEGV)).to_string(), "was killed by SIGSEGV");
        assert_eq!(
            Ending::Signalled(libc::SIGRTMIN()).to_string(),
            format!("was killed by signal {}", libc::SIGRTMIN())
        );
    }

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_run() {
        let of = |number| start_failure(&io::Error::from_raw_os_error(number));
        assert_eq!([of(libc::ENOENT), of(libc::EACCES), of(libc::EAGAIN)], [127, 126, 125]);
    }
}
