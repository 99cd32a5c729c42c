//! What the kernel knows of a process of this host: who it is, that it has died and of what, and what it is doing.
//!
//! Everything here only looks. Nothing is asked of the process itself, which may be the one that cannot answer.

mod boot;
mod cgroup;
mod death;
mod dossier;
mod explain;
mod files;
mod group;
pub mod limit;
mod look;
pub mod looker;
mod name;
mod pidfd;
mod pressure;
mod stat;
mod state;
mod status;
mod text;
pub mod watch;

#[cfg(test)]
pub(crate) mod testing;

use std::num::NonZeroU64;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

pub(crate) use self::boot::{Boot, is_there};
pub use self::cgroup::{Cgroup, Throttled};
pub use self::death::Death;
pub use self::dossier::Dossier;
pub use self::explain::{Doing, Explanation, explain};
pub(crate) use self::group::members_of_group;
pub use self::look::{
    Change, Descriptors, Details, Host, Look, MOST_DESCRIPTORS, MOST_THREADS, Stuck, namespace_pids,
};
pub use self::name::ProcessName;
pub(crate) use self::pidfd::Pidfd;
pub use self::pressure::{Pressure, Share, Stall};
use self::stat::Stat;
pub use self::state::{State, States};
pub use self::status::Switches;
use crate::tracker::{ProcessIdentity, Processes};

/// Whether there is a process with this pid, be it a zombie. In doubt there is.
#[must_use]
pub fn exists(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return true };
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// When the process with this pid started, in clock ticks after the boot; `None` when there is none or it may not be seen.
pub(crate) fn start_time(pid: u32) -> Option<NonZeroU64> {
    Stat::of_thread(pid, pid).map(|stat| stat.start_time)
}

/// Reads identities from `/proc`.
#[derive(Clone, Debug)]
pub struct ProcFs {
    /// What the server itself is called. What is in the same unit or container is not told apart by its name.
    own: Option<ProcessName>,
}

impl ProcFs {
    /// Looks who the server is.
    #[must_use]
    pub fn new() -> Self {
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
        // Of the main thread, and not of the process, for which the kernel adds up all threads: a process with ten
        // thousand of them would cost a hundred times as much. What is read here is the same in both.
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
