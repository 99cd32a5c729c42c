//! Identification of processes from `/proc`: by pid and start time, which are unique even though pids are
//! reused, and by name.

use std::num::NonZeroU64;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::domain::process::identity::{ProcessIdentity, Processes};
use crate::observe::name::ProcessName;
use crate::observe::stat::Stat;

/// Whether a process with this pid exists, if only as a zombie; true in doubt.
#[must_use]
pub(crate) fn exists(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return true };
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// The start time of a process in clock ticks after the boot; `None` when it does not exist or may not be
/// read.
pub(crate) fn start_time(pid: u32) -> Option<NonZeroU64> {
    Stat::of_thread(pid, pid).map(|stat| stat.start_time)
}

/// Reads identities from `/proc`.
#[derive(Clone, Debug)]
pub(crate) struct ProcFs {
    /// The server's own name. Processes of the same unit or container are not named by it.
    own: Option<ProcessName>,
}

impl ProcFs {
    /// Reads the server's own name.
    #[must_use]
    pub(crate) fn new() -> Self {
        ProcFs { own: ProcessName::of_process(std::process::id()) }
    }
}

impl Default for ProcFs {
    fn default() -> Self {
        ProcFs::new()
    }
}

impl Processes for ProcFs {
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        // Of the main thread instead of the process, for which the kernel adds up all threads: with ten
        // thousand of them that would cost a hundred times as much. The fields read here are the same in
        // both.
        let Stat { start_time, name, .. } = Stat::of_thread(pid, pid)?;
        let group = ProcessName::of_group(pid).filter(|(group, _)| self.own.as_ref() != Some(group));
        Some(match group {
            Some((group, is_unit)) => {
                ProcessIdentity { start_time, name: group.to_string(), is_group: true, is_unit }
            }
            None => ProcessIdentity { start_time, name, is_group: false, is_unit: false },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::identify::{ProcFs, exists};

    #[test]
    fn this_process_is_identified_the_same_each_time() {
        let first = ProcFs::new().identify(std::process::id()).unwrap();
        assert_eq!(ProcFs::new().identify(std::process::id()), Some(first));
    }

    #[test]
    fn a_process_exists_until_its_end_is_asked_for() {
        assert!(exists(std::process::id()) && exists(1));
        assert!(exists(0) && exists(u32::MAX), "no pids, of which nothing can be said");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(!exists(child.id()));
    }

    #[test]
    fn a_pid_that_nobody_has_is_nobody() {
        assert_eq!(ProcFs::new().identify(u32::MAX), None);
    }
}
