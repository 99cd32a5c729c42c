//! The end of a process, as wait(2), a pidfd or a zombie's status reports it.

use std::borrow::Cow;
use std::fmt;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// How a process ended, as far as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitStatus {
    /// It exited by itself.
    Exited {
        /// The exit status; 0 is success.
        code: u8,
    },
    /// A signal killed it.
    Killed {
        /// The signal number.
        signal: u8,
        /// Whether the kernel wrote a core dump, or piped one to a program.
        core_dumped: bool,
    },
    /// It is gone and the kernel does not report how: the kernel is older than Linux 6.15, or the status
    /// could not be read in time.
    Unknown,
}

impl ExitStatus {
    /// Decodes a status of wait(2); any status but that of an end is [`ExitStatus::Unknown`].
    pub(crate) fn from_wait_status(status: i32) -> Self {
        // The macros mask both to one byte.
        let byte = |number: i32| u8::try_from(number).ok();
        let death = if libc::WIFEXITED(status) {
            byte(libc::WEXITSTATUS(status)).map(|code| ExitStatus::Exited { code })
        } else if libc::WIFSIGNALED(status) {
            let core_dumped = libc::WCOREDUMP(status);
            byte(libc::WTERMSIG(status)).map(|signal| ExitStatus::Killed { signal, core_dumped })
        } else {
            None
        };
        death.unwrap_or(ExitStatus::Unknown)
    }
}

/// `exited with status 3`, `killed by SIGSEGV (core dumped)`, `gone, exit status unknown`.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ExitStatus::Exited { code } => write!(f, "exited with status {code}"),
            ExitStatus::Killed { signal, core_dumped } => {
                write!(f, "killed by {}", signal_name(signal))?;
                f.write_str(if core_dumped { " (core dumped)" } else { "" })
            }
            ExitStatus::Unknown => f.write_str("gone, exit status unknown"),
        }
    }
}

/// `SIGKILL` for 9; `signal 64` for a signal without a name.
pub(crate) fn signal_name(signal: u8) -> Cow<'static, str> {
    Signal::try_from(i32::from(signal))
        .map_or_else(|_| Cow::Owned(format!("signal {signal}")), |signal| Cow::Borrowed(signal.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_reads_as_wait_writes_it() {
        let killed = |signal, core_dumped| ExitStatus::Killed { signal, core_dumped };
        let table = [
            (0, ExitStatus::Exited { code: 0 }, "exited with status 0"),
            (0x0300, ExitStatus::Exited { code: 3 }, "exited with status 3"),
            (0xff00, ExitStatus::Exited { code: 255 }, "exited with status 255"),
            (9, killed(9, false), "killed by SIGKILL"),
            (0x8b, killed(11, true), "killed by SIGSEGV (core dumped)"),
            (40, killed(40, false), "killed by signal 40"),
            // Stopped and continued, which is no end.
            (0x137f, ExitStatus::Unknown, "gone, exit status unknown"),
            (0xffff, ExitStatus::Unknown, "gone, exit status unknown"),
        ];
        for (status, death, text) in table {
            assert_eq!(ExitStatus::from_wait_status(status), death, "{status:#x}");
            assert_eq!(death.to_string(), text);
        }
    }
}
