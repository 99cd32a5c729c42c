//! Identification of processes from `/proc`: by pid and start time, which are unique even though pids are
//! reused, and by name.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::domain::process::identity::{ProcessIdentity, Processes};
use crate::domain::process::{Lineage, PidfdTag, ProcessId};
use crate::observe::kernel_file::read_some;
use crate::observe::name::ProcessName;
use crate::observe::pidfd::Pidfd;
use crate::observe::stat::Stat;

/// Whether a process with this pid exists, if only as a zombie; true in doubt.
#[must_use]
pub(crate) fn exists(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return true };
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// What is known of whether a process still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It exists, if only as a zombie.
    There,
    /// No process has its pid, or another has it.
    Gone,
    /// A process has its pid and cannot be read: because descriptors have run out, or because `/proc` hides
    /// the processes of other users.
    Unknown,
}

/// Whether the process with this pid and start time still exists. A failing read is no evidence that it does
/// not.
pub(crate) fn presence(pid: u32, start_time: NonZeroU64) -> Presence {
    match Stat::of_thread(pid, pid) {
        Some(stat) if stat.start_time == start_time => Presence::There,
        Some(_) => Presence::Gone,
        None if exists(pid) => Presence::Unknown,
        None => Presence::Gone,
    }
}

/// Whether a process has ended, if only as a zombie; of one that could not be identified, whether no living process
/// has its pid. False in doubt.
pub(crate) fn has_ended(pid: u32, process: Option<ProcessId>) -> bool {
    let Ok(pidfd) = Pidfd::open(pid) else { return !exists(pid) };
    let is_another = |process: ProcessId| {
        !process.tag.may_be(pidfd.tag()) || presence(pid, process.start_time) == Presence::Gone
    };
    pidfd.has_ended() || process.is_some_and(is_another)
}

/// The start time of a process in clock ticks after the boot; `None` when it does not exist or may not be
/// read.
pub(crate) fn start_time(pid: u32) -> Option<NonZeroU64> {
    Stat::of_thread(pid, pid).map(|stat| stat.start_time)
}

/// The bytes of a command line that are compared.
const COMMAND_LINE_ROOM: usize = 4096;
/// The maximum number of lineages that are kept for [`ProcFs::take_lineage`]. Beyond it they are read again.
const MAX_LINEAGES: usize = 1_024;

/// Reads identities from `/proc`.
#[derive(Clone, Debug)]
pub(crate) struct ProcFs {
    /// The server's own name. Processes of the same unit or container are not named by it.
    own: Option<ProcessName>,
    /// Keyed differently in each server, so that nobody can choose command lines that collide.
    hasher: RandomState,
    /// Lineages of processes that were just identified, and are about to be watched.
    lineages: HashMap<ProcessId, Lineage>,
}

impl ProcFs {
    /// Reads the server's own name.
    #[must_use]
    pub(crate) fn new() -> Self {
        ProcFs {
            own: ProcessName::of_process(std::process::id()),
            hasher: RandomState::new(),
            lineages: HashMap::new(),
        }
    }

    /// What a process has in common with its successor, once; read now if it was not identified a moment ago.
    pub(crate) fn take_lineage(&mut self, process: ProcessId) -> Lineage {
        if let Some(lineage) = self.lineages.remove(&process) {
            return lineage;
        }
        self.read_lineage(process.pid)
    }

    fn read_lineage(&self, pid: u32) -> Lineage {
        let mut room = [0; COMMAND_LINE_ROOM];
        let line = read_some(format!("/proc/{pid}/cmdline"), &mut room).filter(|line| !line.is_empty());
        let command = line.map_or(0, |line| {
            // Processes of other users do not show their directory.
            let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok();
            let hash = self.hasher.hash_one((line, directory));
            // 0 stands for an unknown one.
            u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(u32::MAX).max(1)
        });
        Lineage { command }
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
        // Opened before the rest is read, so that it belongs to that if it agrees with it.
        let pidfd = Pidfd::open(pid).ok();
        let stat = Stat::of_thread(pid, pid)?;
        let tag = pidfd
            .filter(|pidfd| pidfd.has_ended() == stat.is_dead())
            .map_or(PidfdTag::UNKNOWN, |pidfd| pidfd.tag());
        let lineage = self.read_lineage(pid);
        if self.lineages.len() >= MAX_LINEAGES {
            self.lineages.clear();
        }
        self.lineages.insert(ProcessId { pid, start_time: stat.start_time, tag }, lineage);
        let has_ended = stat.is_dead();
        let Stat { start_time, name, .. } = stat;
        let (group, place) = ProcessName::of_group(pid);
        let group = group.filter(|(group, _)| self.own.as_ref() != Some(group));
        let (name, is_group, is_unit) = match group {
            Some((group, is_unit)) => (group.to_string(), true, is_unit),
            None => (name, false, false),
        };
        Some(ProcessIdentity { start_time, tag, name, is_group, is_unit, place, lineage, has_ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::testing::{Child, await_that};

    #[test]
    fn this_process_is_identified_the_same_each_time() {
        let mut processes = ProcFs::new();
        let first = processes.identify(std::process::id()).unwrap();
        assert_eq!(processes.identify(std::process::id()), Some(first));
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
    fn what_has_a_pid_is_there_only_with_its_own_start_time() {
        let child = Child::asleep();
        assert_eq!(presence(child.pid(), child.start_time()), Presence::There);
        let another = child.start_time().checked_add(1).unwrap();
        assert_eq!(presence(child.pid(), another), Presence::Gone);
        let (pid, start_time) = (child.pid(), child.start_time());
        drop(child);
        assert_eq!(presence(pid, start_time), Presence::Gone);
        assert_eq!(presence(u32::MAX, start_time), Presence::Unknown, "no pid, of which nothing can be said");
    }

    #[test]
    fn a_process_has_ended_when_it_is_a_zombie_or_its_pid_is_free_or_anothers() {
        let mut child = Child::shell("read line");
        let process = |start_time| Some(ProcessId::new(child.pid(), start_time));
        let (itself, another) =
            (process(child.start_time()), process(child.start_time().checked_add(1).unwrap()));
        assert!(!has_ended(child.pid(), itself) && !has_ended(child.pid(), None));
        assert!(has_ended(child.pid(), another));
        child.close_input();
        await_that("it has ended", || has_ended(child.pid(), itself));
        assert!(has_ended(child.pid(), None));
        child.reap();
        assert!(has_ended(child.pid(), itself) && has_ended(child.pid(), None));
        assert!(!has_ended(u32::MAX, None), "no pid, of which nothing can be said");
    }

    #[test]
    fn processes_that_were_started_by_one_command_in_one_directory_have_one_lineage() {
        let (one, other, unlike) = (Child::asleep(), Child::asleep(), Child::shell("read other"));
        let mut processes = ProcFs::new();
        let [one, other, unlike] =
            [&one, &other, &unlike].map(|child| processes.identify(child.pid()).unwrap().lineage);
        assert!(one.has_same_command(other) && !one.has_same_command(unlike));
    }

    #[test]
    fn a_lineage_is_kept_until_it_is_taken_and_read_again_after_that() {
        let child = Child::asleep();
        let mut processes = ProcFs::new();
        let ProcessIdentity { lineage, start_time, tag, .. } = processes.identify(child.pid()).unwrap();
        let process = ProcessId { pid: child.pid(), start_time, tag };
        assert_eq!(processes.lineages.len(), 1);
        assert_eq!(processes.take_lineage(process), lineage);
        assert!(processes.lineages.is_empty());
        assert_eq!(processes.take_lineage(process), lineage);
    }

    #[test]
    fn a_pid_that_nobody_has_is_nobody() {
        assert_eq!(ProcFs::new().identify(u32::MAX), None);
    }

    #[test]
    fn two_processes_have_two_tags_where_the_kernel_numbers_them_and_one_keeps_its_own() {
        let children: Vec<_> = (0..20).map(|_| Child::asleep()).collect();
        let mut processes = ProcFs::new();
        let mut tags = || -> Vec<_> {
            children.iter().map(|child| processes.identify(child.pid()).unwrap().tag).collect()
        };
        let [mut first, second] = [tags(), tags()];
        assert_eq!(first, second);
        if !has_inodes() {
            eprintln!("skipped: the kernel gives pidfds no inode numbers of their own");
            assert!(first.iter().all(|tag| *tag == PidfdTag::UNKNOWN));
            return;
        }
        first.sort_by_key(|tag| tag.number());
        first.dedup();
        assert_eq!(first.len(), children.len());
    }

    /// Whether two pidfds of different processes are different files.
    fn has_inodes() -> bool {
        let inode = |pid| nix::sys::stat::fstat(Pidfd::open(pid).unwrap().as_fd()).unwrap().st_ino;
        inode(std::process::id()) != inode(1)
    }
}
