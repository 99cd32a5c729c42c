//! The exit watcher: reports the exit of processes that are no children of this one, at the moment they exit.
//!
//! One epoll instance holds all pidfds, and only that one is registered with the runtime: a million
//! registrations there would cost a few hundred bytes each and walks through the runtime's lists. While no
//! process exits, nothing wakes up.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::base::clock::Clock;
use crate::base::time::MonoTime;
use crate::domain::process::{ExitStatus, Lineage, PidfdTag};
use crate::observe::pidfd::{EVENTS, ExitPoll, Pidfd, PidfdSet};
use crate::observe::stat::Stat;

/// How long the exit status of a zombie is awaited that its parent has not reaped and that this user may not
/// read before. A parent that reaps does so at once; any other leaves the zombie for good.
const UNREAPED_FOR: Duration = Duration::from_millis(100);

/// Reports which of the watched processes exited.
///
/// Belongs to one task of a runtime with I/O and time enabled. Each watched process takes one descriptor.
#[derive(Debug)]
pub(crate) struct ExitWatcher {
    pidfds: AsyncFd<PidfdSet>,
    /// By the caller's key.
    watched: HashMap<u64, Watched>,
    /// Keys that the kernel reported and that were not examined yet: at most [`EVENTS`].
    named: VecDeque<u64>,
    /// Keys of zombies whose status is awaited, in the order of their deadlines; some may be settled already.
    /// A queue instead of a heap, because all of them wait equally long.
    unreaped: VecDeque<(MonoTime, u64)>,
    /// Exits that were looked at ahead of their turn, at most [`EVENTS`], and behind those that were put back.
    peeked: VecDeque<ProcessExit>,
    /// The processes whose exits were reported in this turn, to be closed when that has led to a verdict.
    ended: Vec<Pidfd>,
    cap: usize,
    counts: WatchRefusals,
    clock: Clock,
    /// Reads the status of a zombie. Replaced in tests by one that may read nothing.
    read_stat: fn(u32) -> Option<Stat>,
}

#[derive(Debug)]
struct Watched {
    pidfd: Pidfd,
    process: WatchedProcess,
    /// The deadline for its exit status; `NEVER` while the process lives, and after its exit was reported
    /// without the status.
    unreaped_until: MonoTime,
    is_reported: bool,
}

/// A process to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchedProcess {
    pub pid: u32,
    /// Its start time in clock ticks after the boot; `None` where `/proc` hides it, or it was gone before it could be
    /// read.
    pub start_time: Option<NonZeroU64>,
    /// Whether a process without a start time was alive when it began to be watched.
    pub was_alive: bool,
    /// Tells it from another process with the same pid and start time, if it is known.
    pub tag: PidfdTag,
    /// What it has in common with its successor.
    pub lineage: Lineage,
}

impl WatchedProcess {
    /// Whether a living process has its pid and its start time.
    fn is_alive(&self) -> bool {
        Stat::of_thread(self.pid, self.pid)
            .is_some_and(|stat| !stat.is_dead() && self.start_time == Some(stat.start_time))
    }

    /// Its exit status, if it is a zombie that shows the status to this user.
    fn death_by(&self, read_stat: fn(u32) -> Option<Stat>) -> Option<ExitStatus> {
        let stat = read_stat(self.pid)?;
        let is_its = self.start_time.is_none_or(|start_time| stat.start_time == start_time);
        stat.death.filter(|_| is_its)
    }
}

/// The exit of a watched process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessExit {
    /// The caller's key.
    pub key: u64,
    /// The process, whose pid may have been reused since.
    pub process: WatchedProcess,
    /// Its exit status. While it is unknown because the parent of the process does not ask for it, the exit
    /// is reported once more when it does.
    pub death: ExitStatus,
}

/// Why a process is not watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WatchError {
    /// The process does not exist any more, or its pid was reused.
    #[error("the process is gone")]
    Gone,
    /// The cap is reached.
    #[error(
        "{cap} processes are watched, as many as the limit of open files leaves room for; raise LimitNOFILE"
    )]
    Full {
        /// The cap.
        cap: usize,
    },
    /// The kernel refuses: it is older than Linux 5.3, or short of descriptors, memory or epoll watches.
    #[error("the kernel refused to watch the process: {0}")]
    Kernel(#[source] io::Error),
}

/// The number of processes that were not watched, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchRefusals {
    /// The process had exited.
    pub gone: u64,
    /// The cap was reached.
    pub full: u64,
    /// The kernel refused.
    pub kernel: u64,
}

impl ExitWatcher {
    /// Creates a watcher of at most `cap` processes; see
    /// [`DescriptorShares`](crate::observe::descriptor_limit::DescriptorShares).
    ///
    /// Must be called within a runtime that has I/O and time enabled.
    ///
    /// # Errors
    ///
    /// The kernel refuses to create an epoll instance.
    pub(crate) fn new(clock: Clock, cap: usize) -> io::Result<Self> {
        Ok(ExitWatcher {
            pidfds: PidfdSet::new()?.register()?,
            watched: HashMap::new(),
            named: VecDeque::with_capacity(EVENTS),
            unreaped: VecDeque::new(),
            peeked: VecDeque::new(),
            ended: Vec::new(),
            cap,
            counts: WatchRefusals::default(),
            clock,
            read_stat: Stat::of_process,
        })
    }

    /// Watches a process, in place of any other process under `key`, by the pidfd that came with its datagram,
    /// or else by one that is opened by its pid.
    ///
    /// The exit of a zombie is reported at once, and that of a process that was reaped if its pidfd came.
    ///
    /// # Errors
    ///
    /// See [`WatchError`]; each error is counted and changes nothing else.
    pub(crate) fn watch(
        &mut self,
        key: u64,
        process: WatchedProcess,
        arrived: Option<Pidfd>,
    ) -> Result<(), WatchError> {
        self.close_ended();
        let result = self.try_watch(key, process, arrived);
        match &result {
            Ok(()) => {}
            Err(WatchError::Gone) => self.counts.gone += 1,
            Err(WatchError::Full { .. }) => self.counts.full += 1,
            Err(WatchError::Kernel(_)) => self.counts.kernel += 1,
        }
        result
    }

    fn try_watch(
        &mut self,
        key: u64,
        process: WatchedProcess,
        arrived: Option<Pidfd>,
    ) -> Result<(), WatchError> {
        if self.watched.len() >= self.cap && !self.watched.contains_key(&key) {
            return Err(WatchError::Full { cap: self.cap });
        }
        let pidfd = match arrived {
            Some(pidfd) if process.tag != PidfdTag::UNKNOWN && process.tag == pidfd.tag() => pidfd,
            Some(pidfd) if !(pidfd.has_ended() && process.is_alive()) => pidfd,
            // Its pid has been reused since, and the process that has it now is watched.
            Some(_) | None => Pidfd::open(process.pid).map_err(|error| match error.raw_os_error() {
                Some(libc::ESRCH) => WatchError::Gone,
                _ => WatchError::Kernel(error),
            })?,
        };
        // Read after the pidfd was opened: if the start time is right, the pidfd belongs to this process. That
        // it cannot be read is no evidence of another.
        let is_another = |start_time| {
            Stat::of_thread(process.pid, process.pid).is_some_and(|stat| stat.start_time != start_time)
        };
        if process.start_time.is_some_and(is_another) || !process.tag.may_be(pidfd.tag()) {
            return Err(WatchError::Gone);
        }
        let was_alive = process.was_alive || process.start_time.is_none() && !pidfd.has_ended();
        let process = WatchedProcess { was_alive, ..process };
        self.pidfds.get_ref().add(&pidfd, key).map_err(WatchError::Kernel)?;
        self.unwatch(key);
        let watched = Watched { pidfd, process, unreaped_until: MonoTime::NEVER, is_reported: false };
        self.watched.insert(key, watched);
        Ok(())
    }

    /// Stops watching a process, and closes its pidfd. Returns whether `key` was watched.
    pub(crate) fn unwatch(&mut self, key: u64) -> bool {
        let Some(watched) = self.watched.remove(&key) else { return false };
        self.pidfds.get_ref().remove(&watched.pidfd);
        true
    }

    /// The watched processes whose exits were not reported, with their pidfds.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (WatchedProcess, BorrowedFd<'_>)> {
        let unreported = self.watched.values().filter(|watched| !watched.is_reported);
        unreported.map(|watched| (watched.process, watched.pidfd.as_fd()))
    }

    fn close_ended(&mut self) {
        for pidfd in self.ended.drain(..) {
            self.pidfds.get_ref().remove(&pidfd);
        }
    }

    /// Waits for the next exit.
    ///
    /// Cancel safe: a dropped future loses nothing.
    ///
    /// # Errors
    ///
    /// The kernel fails to wait: no process is watched any more.
    pub(crate) async fn next(&mut self) -> io::Result<ProcessExit> {
        if let Some(exit) = self.peeked.pop_front() {
            return Ok(exit);
        }
        self.close_ended();
        loop {
            if let Some(death) = self.take_named() {
                return Ok(death);
            }
            let until = self.unreaped_until();
            tokio::select! {
                biased;
                ready = self.pidfds.readable() => {
                    let mut ready = ready?;
                    if ready.get_inner().take_ready(&mut self.named)? < EVENTS {
                        // Whatever is reported from now on sets the readiness again.
                        ready.clear_ready();
                    }
                }
                () = tokio::time::sleep_until(self.clock.instant(until)), if until < MonoTime::NEVER => {
                    if let Some(death) = self.take_overdue(self.clock.now()) {
                        return Ok(death);
                    }
                }
            }
        }
    }

    /// The next exit that can be reported without waiting, to take several in a row.
    ///
    /// # Errors
    ///
    /// As [`ExitWatcher::next`].
    pub(crate) fn try_next(&mut self) -> io::Result<Option<ProcessExit>> {
        if let Some(exit) = self.peeked.pop_front() {
            return Ok(Some(exit));
        }
        self.find_next()
    }

    /// Looks at the exits that the kernel has reported, some dozens of them at most, and leaves them to be
    /// taken.
    pub(crate) fn peek(&mut self) -> impl Iterator<Item = &ProcessExit> {
        while self.peeked.len() < EVENTS {
            // What fails here fails again when it is taken.
            let Ok(Some(exit)) = self.find_next() else { break };
            self.peeked.push_back(exit);
        }
        self.peeked.iter()
    }

    /// The processes that are dead and whose exit status is awaited: the first of them, some dozens at most.
    pub(crate) fn unreaped(&self) -> impl Iterator<Item = &WatchedProcess> {
        let awaited = self.unreaped.iter().filter_map(|(until, key)| {
            let watched = self.watched.get(key)?;
            (watched.unreaped_until == *until).then_some(&watched.process)
        });
        awaited.take(EVENTS)
    }

    /// The exits that were looked at and not taken.
    pub(crate) fn peeked(&self) -> impl Iterator<Item = &ProcessExit> {
        self.peeked.iter()
    }

    /// Has these exits taken, before any other, in their order: they were not acted on, by whoever took them.
    pub(crate) fn put_back(&mut self, exits: Vec<ProcessExit>) {
        for exit in exits.into_iter().rev() {
            self.peeked.push_front(exit);
        }
    }

    fn find_next(&mut self) -> io::Result<Option<ProcessExit>> {
        loop {
            if let Some(death) = self.take_named() {
                return Ok(Some(death));
            }
            if self.pidfds.get_ref().take_ready(&mut self.named)? == 0 {
                return Ok(self.take_overdue(self.clock.now()));
            }
        }
    }

    /// Examines the reported keys up to the first process whose exit status is known.
    fn take_named(&mut self) -> Option<ProcessExit> {
        while let Some(key) = self.named.pop_front() {
            if let Some(death) = self.ask(key) {
                return self.tell(key, death);
            }
        }
        None
    }

    /// The exit status of a process; `None` while it lives or its status is awaited.
    fn ask(&mut self, key: u64) -> Option<ExitStatus> {
        let watched = self.watched.get_mut(&key)?;
        match watched.pidfd.ask() {
            // The event belongs to the process that was watched under this key before.
            ExitPoll::Alive => return None,
            ExitPoll::Dead(death) => return Some(death),
            ExitPoll::Unreaped => {}
        }
        if watched.is_reported {
            return None;
        }
        if let Some(death) = watched.process.death_by(self.read_stat) {
            return Some(death);
        }
        // The parent may have reaped it in between.
        if let ExitPoll::Dead(death) = watched.pidfd.ask() {
            return Some(death);
        }
        if watched.unreaped_until == MonoTime::NEVER {
            watched.unreaped_until = self.clock.now() + UNREAPED_FOR;
            self.unreaped.push_back((watched.unreaped_until, key));
        }
        None
    }

    /// The earliest deadline for an exit status; `NEVER` when none is awaited.
    fn unreaped_until(&mut self) -> MonoTime {
        while let Some((until, key)) = self.unreaped.front() {
            if self.watched.get(key).is_some_and(|watched| watched.unreaped_until == *until) {
                return *until;
            }
            self.unreaped.pop_front();
        }
        MonoTime::NEVER
    }

    /// The exit of a process whose status did not become available in time. The process stays watched: the
    /// kernel reports once more when its parent asks for the status.
    fn take_overdue(&mut self, now: MonoTime) -> Option<ProcessExit> {
        if self.unreaped_until() > now {
            return None;
        }
        let (_, key) = self.unreaped.pop_front()?;
        let watched = self.watched.get_mut(&key)?;
        // In the moment of its end a process shows no status yet.
        if let Some(death) = watched.process.death_by(self.read_stat) {
            return self.tell(key, death);
        }
        watched.unreaped_until = MonoTime::NEVER;
        watched.is_reported = true;
        Some(ProcessExit { key, process: watched.process, death: ExitStatus::Unknown })
    }

    fn tell(&mut self, key: u64, death: ExitStatus) -> Option<ProcessExit> {
        let Watched { pidfd, process, .. } = self.watched.remove(&key)?;
        self.ended.push(pidfd);
        Some(ProcessExit { key, process, death })
    }

    /// Whether the exit of the process under this key is still to be reported.
    #[must_use]
    pub(crate) fn watches(&self, key: u64) -> bool {
        self.watched.get(&key).is_some_and(|watched| !watched.is_reported)
    }

    /// The number of watched processes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.watched.len()
    }

    /// The number of processes that were not watched since the start, by reason.
    #[must_use]
    pub(crate) fn refusals(&self) -> WatchRefusals {
        self.counts
    }
}
