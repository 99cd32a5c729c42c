//! What the kernel says of the processes that send notifications: their parents, ages, cgroups and ends.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use tokio::io::unix::AsyncFd;

use crate::domain::process::ExitStatus;
use crate::observe::cgroup::{read_lines, unified_path};
use crate::observe::environment::environment_variable;
use crate::observe::pidfd::{EVENTS, ExitPoll, PidfdSet};
use crate::observe::stat::Stat;
use crate::observe::{Pidfd, namespace_pids, user_and_groups};

/// The most ancestors of a process that are looked at.
pub(super) const MAX_ANCESTORS: usize = 16;

/// What is asked about processes. A pid is that of the server's PID namespace.
pub(super) trait Kin {
    /// The parent of a process; `None` when that cannot be read, or there is none in this namespace.
    fn parent(&mut self, pid: u32) -> Option<u32>;

    /// How long ago a process was started.
    fn age(&mut self, pid: u32) -> Option<Duration>;

    /// The cgroup that a process shares with no other service, if there is one: not the root.
    fn cgroup(&mut self, pid: u32) -> Option<String>;

    /// The user of a process.
    fn uid(&mut self, pid: u32) -> Option<u32>;

    /// The process that has the pid `inner` in the PID namespace of the process `of`.
    fn resolve(&mut self, of: u32, inner: u32) -> Option<u32>;

    /// The time within which the environment of a process asks for keep-alives (`WATCHDOG_USEC`).
    fn keep_alives_within(&mut self, pid: u32) -> Option<Duration>;

    /// Has the end of a process reported, by its pidfd if there is one. Whether it is there.
    fn watch(&mut self, pid: u32, pidfd: Option<OwnedFd>) -> bool;

    /// Ends that, and gives the pidfd.
    fn unwatch(&mut self, pid: u32) -> Option<OwnedFd>;

    /// Whether a process that is watched has ended, and how, as far as that is known; `None` while it lives.
    fn end_of(&mut self, pid: u32) -> Option<ExitStatus>;

    /// The ancestors of a process, the parent first.
    fn ancestors(&mut self, pid: u32) -> Vec<u32> {
        let mut ancestors = Vec::new();
        let mut next = self.parent(pid);
        while let Some(parent) = next.filter(|_| ancestors.len() < MAX_ANCESTORS) {
            ancestors.push(parent);
            next = self.parent(parent);
        }
        ancestors
    }
}

/// The processes of this host.
#[derive(Debug)]
pub(super) struct KernelKin {
    ends: PidfdSet,
    watched: HashMap<u32, Pidfd>,
    ticks_per_second: u64,
}

impl KernelKin {
    /// # Errors
    ///
    /// Descriptors or memory are exhausted.
    pub(super) fn new() -> io::Result<Self> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        let ticks_per_second = ticks.filter(|ticks| *ticks > 0).unwrap_or(100);
        Ok(KernelKin { ends: PidfdSet::new()?, watched: HashMap::new(), ticks_per_second })
    }

    /// What is readable when a watched process has ended. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Descriptors are short.
    pub(super) fn ends(&self) -> io::Result<AsyncFd<OwnedFd>> {
        self.ends.register_copy()
    }

    /// The pids of watched processes that have ended since the last call.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub(super) fn take_ended(&mut self) -> io::Result<Vec<u32>> {
        let mut keys = VecDeque::new();
        // What is left is not reported again.
        while self.ends.take_ready(&mut keys)? == EVENTS {}
        let pids = keys.into_iter().filter_map(|key| u32::try_from(key).ok());
        Ok(pids.filter(|pid| self.watched.get(pid).is_some_and(Pidfd::has_ended)).collect())
    }
}

impl Kin for KernelKin {
    fn parent(&mut self, pid: u32) -> Option<u32> {
        Stat::of_thread(pid, pid).map(|stat| stat.parent).filter(|parent| *parent > 0)
    }

    fn age(&mut self, pid: u32) -> Option<Duration> {
        let started = Stat::of_thread(pid, pid)?.start_time.get();
        let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
        let nanos_per_tick = 1_000_000_000 / self.ticks_per_second;
        Some(since_boot.saturating_sub(Duration::from_nanos(started.saturating_mul(nanos_per_tick))))
    }

    fn cgroup(&mut self, pid: u32) -> Option<String> {
        let lines = read_lines(pid)?;
        unified_path(&lines).filter(|path| *path != "/").map(str::to_owned)
    }

    fn uid(&mut self, pid: u32) -> Option<u32> {
        user_and_groups(pid).map(|(uid, _)| uid)
    }

    fn resolve(&mut self, of: u32, inner: u32) -> Option<u32> {
        let own = namespace_pids(of);
        match own[..] {
            [] => None,
            _ if own.contains(&inner) => Some(of),
            [_] => Some(inner),
            // Of the processes of a container only those that the sender descends from are known.
            _ => self.ancestors(of).into_iter().find(|ancestor| namespace_pids(*ancestor).contains(&inner)),
        }
    }

    fn keep_alives_within(&mut self, pid: u32) -> Option<Duration> {
        let micros: u64 = environment_variable(pid, "WATCHDOG_USEC")?.parse().ok()?;
        (micros > 0).then_some(Duration::from_micros(micros))
    }

    fn watch(&mut self, pid: u32, pidfd: Option<OwnedFd>) -> bool {
        if self.watched.contains_key(&pid) {
            return true;
        }
        let pidfd = match pidfd {
            Some(pidfd) => Pidfd::of_sender(pidfd),
            None => match Pidfd::open(pid) {
                Ok(pidfd) => pidfd,
                // Without descriptors nothing is known of its end, and it may well be there.
                Err(error) => return error.raw_os_error() != Some(libc::ESRCH),
            },
        };
        if self.ends.add(&pidfd, u64::from(pid)).is_err() {
            return !pidfd.has_ended();
        }
        let is_there = !pidfd.has_ended();
        self.watched.insert(pid, pidfd);
        is_there
    }

    fn unwatch(&mut self, pid: u32) -> Option<OwnedFd> {
        let pidfd = self.watched.remove(&pid)?;
        self.ends.remove(&pidfd);
        Some(pidfd.into())
    }

    fn end_of(&mut self, pid: u32) -> Option<ExitStatus> {
        match self.watched.get(&pid)?.ask() {
            ExitPoll::Alive => None,
            ExitPoll::Unreaped => {
                // The status stands in `stat` until then, for who may read it.
                Some(Stat::of_thread(pid, pid).and_then(|stat| stat.death).unwrap_or(ExitStatus::Unknown))
            }
            ExitPoll::Dead(status) => Some(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::testing::{Child, await_that};

    #[test]
    fn the_kin_of_a_child_are_known_until_its_end_is_reported() {
        let mut kin = KernelKin::new().unwrap();
        let child = Child::asleep();
        let (pid, own) = (child.pid(), std::process::id());
        assert_eq!(kin.parent(pid), Some(own));
        assert_eq!(kin.ancestors(pid).first(), Some(&own));
        assert!(kin.age(pid).unwrap() < Duration::from_secs(60));
        assert_eq!(kin.uid(pid), Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(kin.resolve(pid, own), Some(own), "they share a namespace");
        assert!(kin.watch(pid, None) && kin.watch(pid, None));
        assert_eq!((kin.end_of(pid), kin.take_ended().unwrap()), (None, vec![]));
        drop(child);
        await_that("its end is reported", || kin.take_ended().unwrap() == [pid]);
        assert!(kin.end_of(pid).is_some());
        kin.unwatch(pid);
        assert!(kin.end_of(pid).is_none());
        assert!(!kin.watch(4_194_304, None), "there is no such process");
    }
}
