//! The watch: tells of the death of processes that are nobody's children here, at the moment at which they die.
//!
//! One epoll instance of our own holds all pidfds, and only that one is registered with the runtime: a million
//! registrations there would cost a few hundred bytes each and a walk through the runtime's lists. While nobody dies,
//! nothing wakes up.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::io::unix::AsyncFd;

use crate::base::clock::Clock;
use crate::base::time::MonoTime;
use crate::domain::process::Death;
use crate::observe::pidfd::{EVENTS, Pidfd, PidfdSet, Told};
use crate::observe::stat::Stat;

/// How long the status of a dead process is waited for that its parent has not asked for yet and that we may not see
/// before. A parent that cares asks at once; one that does not leaves it for good.
const UNREAPED_FOR: Duration = Duration::from_millis(100);

/// Tells which of the watched processes died.
///
/// Belongs to one task of a runtime with I/O and time enabled. Each watched process takes one descriptor.
#[derive(Debug)]
pub(crate) struct Watcher {
    pidfds: AsyncFd<PidfdSet>,
    /// By the caller's key, so that it need not keep one of ours.
    watched: HashMap<u64, Watched>,
    /// Keys that the kernel named and that were not asked about yet: at most [`EVENTS`].
    named: VecDeque<u64>,
    /// Keys of zombies, in the order in which their time is up. Some may have been dealt with. A queue and no heap:
    /// each waits for the same time.
    unreaped: VecDeque<(MonoTime, u64)>,
    cap: usize,
    counts: Refusals,
    clock: Clock,
    /// Where the status of a zombie is read. Another one in tests, that may see nothing.
    read_stat: fn(u32) -> Option<Stat>,
}

#[derive(Debug)]
struct Watched {
    pidfd: Pidfd,
    pid: u32,
    start_time: NonZeroU64,
    /// Until when its status is waited for; `NEVER` while it lives.
    unreaped_until: MonoTime,
}

/// A watched process has died. It is not watched any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessDeath {
    /// What the caller named it by.
    pub key: u64,
    /// The pid it had; somebody else may have it now.
    pub pid: u32,
    /// When it started, in clock ticks after the boot.
    pub start_time: NonZeroU64,
    /// How it died.
    pub death: Death,
}

/// Why a process is not watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotWatched {
    /// The process is not there any more, or another one has its pid.
    #[error("the process is gone")]
    Gone,
    /// As many are watched as may be.
    #[error(
        "{cap} processes are watched, as many as the limit of open files leaves room for; raise LimitNOFILE"
    )]
    Full {
        /// That many.
        cap: usize,
    },
    /// The kernel refused: it is too old (before Linux 5.3), or short of descriptors, memory or epoll watches.
    #[error("the kernel refused to watch the process: {0}")]
    Kernel(#[source] io::Error),
}

/// How often a process was not watched, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusals {
    /// It was gone already.
    pub gone: u64,
    /// The cap was reached.
    pub full: u64,
    /// The kernel refused.
    pub kernel: u64,
}

impl Watcher {
    /// Watches nobody, and later at most `cap` processes; see [`watch_cap`](super::limit::watch_cap).
    ///
    /// To be called within a runtime that has I/O and time enabled.
    ///
    /// # Errors
    ///
    /// When the kernel gives no epoll instance.
    pub(crate) fn new(clock: Clock, cap: usize) -> io::Result<Self> {
        Ok(Watcher {
            pidfds: PidfdSet::new()?.register()?,
            watched: HashMap::new(),
            named: VecDeque::with_capacity(EVENTS),
            unreaped: VecDeque::new(),
            cap,
            counts: Refusals::default(),
            clock,
            read_stat: Stat::of_process,
        })
    }

    /// Watches the process that has this pid and started at this time. Whom `key` named before is not watched any more.
    ///
    /// A zombie is watched, and told of at once.
    ///
    /// # Errors
    ///
    /// See [`NotWatched`]; each is counted, and nothing else has changed.
    pub(crate) fn watch(&mut self, key: u64, pid: u32, start_time: NonZeroU64) -> Result<(), NotWatched> {
        let result = self.try_watch(key, pid, start_time);
        match &result {
            Ok(()) => {}
            Err(NotWatched::Gone) => self.counts.gone += 1,
            Err(NotWatched::Full { .. }) => self.counts.full += 1,
            Err(NotWatched::Kernel(_)) => self.counts.kernel += 1,
        }
        result
    }

    fn try_watch(&mut self, key: u64, pid: u32, start_time: NonZeroU64) -> Result<(), NotWatched> {
        if self.watched.len() >= self.cap && !self.watched.contains_key(&key) {
            return Err(NotWatched::Full { cap: self.cap });
        }
        let pidfd = Pidfd::open(pid).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => NotWatched::Gone,
            _ => NotWatched::Kernel(error),
        })?;
        // Read after it was opened: if this is the process that is meant, the descriptor is of no other.
        if Stat::of_thread(pid, pid).is_none_or(|stat| stat.start_time != start_time) {
            return Err(NotWatched::Gone);
        }
        self.pidfds.get_ref().add(&pidfd, key).map_err(NotWatched::Kernel)?;
        self.unwatch(key);
        self.watched.insert(key, Watched { pidfd, pid, start_time, unreaped_until: MonoTime::NEVER });
        Ok(())
    }

    /// Stops watching, and frees the descriptor. Says whether anybody was watched under that key.
    pub(crate) fn unwatch(&mut self, key: u64) -> bool {
        let Some(watched) = self.watched.remove(&key) else { return false };
        self.pidfds.get_ref().remove(&watched.pidfd);
        true
    }

    /// Waits for the next death.
    ///
    /// May be dropped at any point and called again: nothing is lost.
    ///
    /// # Errors
    ///
    /// When the kernel fails to wait, which means that nothing is watched any more.
    pub(crate) async fn next(&mut self) -> io::Result<ProcessDeath> {
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
                        // Whatever comes from now on makes it ready anew.
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

    /// The next death, if one has happened and can be told of now: for who has a moment to take several.
    ///
    /// # Errors
    ///
    /// As [`Watcher::next`].
    pub(crate) fn try_next(&mut self) -> io::Result<Option<ProcessDeath>> {
        loop {
            if let Some(death) = self.take_named() {
                return Ok(Some(death));
            }
            if self.pidfds.get_ref().take_ready(&mut self.named)? == 0 {
                return Ok(self.take_overdue(self.clock.now()));
            }
        }
    }

    /// Asks about those whom the kernel named, until one has died whose status is known.
    fn take_named(&mut self) -> Option<ProcessDeath> {
        while let Some(key) = self.named.pop_front() {
            if let Some(death) = self.ask(key) {
                return self.tell(key, death);
            }
        }
        None
    }

    /// How this process died; `None` if it lives, or its status is waited for.
    fn ask(&mut self, key: u64) -> Option<Death> {
        let watched = self.watched.get_mut(&key)?;
        match watched.pidfd.ask() {
            // The kernel named another process, which had this key before.
            Told::Alive => return None,
            Told::Dead(death) => return Some(death),
            Told::Unreaped => {}
        }
        let stat = (self.read_stat)(watched.pid).filter(|stat| stat.start_time == watched.start_time);
        if let Some(death) = stat.and_then(|stat| stat.death) {
            return Some(death);
        }
        // Its parent may have asked in between.
        if let Told::Dead(death) = watched.pidfd.ask() {
            return Some(death);
        }
        if watched.unreaped_until == MonoTime::NEVER {
            watched.unreaped_until = self.clock.now() + UNREAPED_FOR;
            self.unreaped.push_back((watched.unreaped_until, key));
        }
        None
    }

    /// When the first status has been waited for long enough; `NEVER` when none is waited for.
    fn unreaped_until(&mut self) -> MonoTime {
        while let Some((until, key)) = self.unreaped.front() {
            if self.watched.get(key).is_some_and(|watched| watched.unreaped_until == *until) {
                return *until;
            }
            self.unreaped.pop_front();
        }
        MonoTime::NEVER
    }

    /// A death whose status has been waited for long enough.
    fn take_overdue(&mut self, now: MonoTime) -> Option<ProcessDeath> {
        if self.unreaped_until() > now {
            return None;
        }
        let (_, key) = self.unreaped.pop_front()?;
        self.tell(key, Death::Unknown)
    }

    fn tell(&mut self, key: u64, death: Death) -> Option<ProcessDeath> {
        let (pid, start_time) = self.watched.get(&key).map(|watched| (watched.pid, watched.start_time))?;
        self.unwatch(key);
        Some(ProcessDeath { key, pid, start_time, death })
    }

    /// Whether something is watched under that key.
    #[must_use]
    pub(crate) fn watches(&self, key: u64) -> bool {
        self.watched.contains_key(&key)
    }

    /// How many are watched.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.watched.len()
    }

    /// How often a process was not watched, since the start.
    #[must_use]
    pub(crate) fn refusals(&self) -> Refusals {
        self.counts
    }
}
