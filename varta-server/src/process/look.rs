//! A look at a process: the facts of one moment, read from what the kernel shows of it.
//!
//! What may not be read, or is not there on this host, is `None`, and no fault. Every file is read up to a bound, and of
//! the threads only the first [`MOST_THREADS`], so that a look costs about the same whoever is looked at.

use std::fs;
use std::num::NonZeroU64;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::Death;
use super::cgroup::{Cgroup, Hierarchy, Throttled};
use super::files::read_some;
use super::pressure::Pressure;
use super::stat::Stat;
use super::state::{State, States};
use super::status::{Status, Switches, parse_call, parse_channel, parse_open_files, parse_run_delay};
use super::text::short;
use crate::time::MonoTime;

/// Threads of which the state is read.
pub const MOST_THREADS: usize = 64;
/// Descriptors that are counted one by one, on a kernel before Linux 6.2.
pub const MOST_DESCRIPTORS: usize = 4096;
/// How much of a command's name is kept: more than the kernel keeps.
pub(super) const MOST_COMMAND: usize = 64;
/// More than the file of a process that is in many groups.
const STATUS_ROOM: usize = 16 * 1024;
const LIMITS_ROOM: usize = 4096;
/// For the files of one line.
const LINE_ROOM: usize = 512;

/// What must be known of this host to look at its processes.
#[derive(Clone, Debug)]
pub struct Host {
    hierarchy: Option<Hierarchy>,
    ticks_per_second: u64,
}

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When it was looked at.
    pub at: MonoTime,
    /// Its pid.
    pub pid: u32,
    /// When it started, in clock ticks after the boot.
    pub start_time: NonZeroU64,
    /// The name of its command, at most 64 bytes.
    pub command: Box<str>,
    /// What its main thread is doing.
    pub state: State,
    /// How it died, if it is a zombie and the kernel tells.
    pub death: Option<Death>,
    /// How many threads it has.
    pub threads: u32,
    /// The CPU time that all its threads have used, in steps of a clock tick (10 ms).
    pub cpu: Duration,
    /// The rest, unless this is a mere glance.
    pub details: Option<Box<Details>>,
}

/// What a look sees beyond a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// How many threads are in each state, of at most [`MOST_THREADS`].
    pub states: States,
    /// The function of the kernel in which the main thread waits, at most 64 bytes.
    pub channel: Option<Box<str>>,
    /// The number of the system call in which the main thread is.
    pub call: Option<u32>,
    /// Another thread that waits without being interruptible: the first that was seen.
    pub stuck: Option<Stuck>,
    /// How often the main thread stopped running.
    pub switches: Option<Switches>,
    /// How long the main thread was ready to run and waited for a CPU.
    pub run_delay: Option<Duration>,
    /// Memory in RAM.
    pub resident_bytes: Option<u64>,
    /// How many descriptors it has open.
    pub descriptors: Option<Descriptors>,
    /// Where it is, and how that fares.
    pub cgroup: Option<Cgroup>,
    /// How short the whole host is of what processes need.
    pub host: Pressure,
}

/// A thread that waits without being interruptible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its thread id.
    pub thread: u32,
    /// The function of the kernel in which it waits, at most 64 bytes.
    pub channel: Option<Box<str>>,
}

/// Open descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// So many; [`MOST_DESCRIPTORS`] stands for any number above it on a kernel before Linux 6.2.
    pub open: u64,
    /// As many as there may be; `None` when that is not limited or not known.
    pub limit: Option<u64>,
}

/// What has happened between two looks at one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The time between them.
    pub over: Duration,
    /// CPU time that all its threads have used.
    pub cpu: Duration,
    /// How often the main thread stopped running.
    pub switches: Option<Switches>,
    /// How long the main thread was ready to run and waited for a CPU.
    pub run_delay: Option<Duration>,
    /// How often and for how long its cgroup was held back by its CPU limit.
    pub throttled: Option<Throttled>,
}

impl Host {
    /// Finds out what must be known.
    #[must_use]
    pub fn find() -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        // Linux has counted in hundredths of a second towards programs for as long as it runs on these machines.
        Host {
            hierarchy: Hierarchy::find(),
            ticks_per_second: ticks.filter(|ticks| *ticks > 0).unwrap_or(100),
        }
    }

    /// Looks at one file: enough to say whether a process is there, stopped, or using CPU. `at` is the present time.
    ///
    /// `None` when no process with this pid and start time is there.
    #[must_use]
    pub fn glance(&self, pid: u32, start_time: NonZeroU64, at: MonoTime) -> Option<Look> {
        let stat = Stat::of_process(pid).filter(|stat| stat.start_time == start_time)?;
        Some(Look {
            at,
            pid,
            start_time,
            command: short(stat.name.as_bytes(), MOST_COMMAND),
            state: State::from_letter(stat.state),
            death: stat.death,
            threads: stat.threads,
            cpu: self.cpu_time(stat.cpu_ticks),
            details: None,
        })
    }

    /// Looks at everything. `at` is the present time.
    ///
    /// `None` when no process with this pid and start time is there, or it goes while it is looked at: all that is told
    /// is of that process.
    #[must_use]
    pub fn look(&self, pid: u32, start_time: NonZeroU64, at: MonoTime) -> Option<Look> {
        let mut look = self.glance(pid, start_time, at)?;
        let status = read_some(format!("/proc/{pid}/status"), &mut vec![0; STATUS_ROOM]).map(Status::parse);
        let status = status.unwrap_or_default();
        let (states, stuck) = look_at_threads(pid);
        look.details = Some(Box::new(Details {
            states,
            stuck,
            channel: read_line(pid, pid, "wchan", parse_channel),
            call: read_line(pid, pid, "syscall", parse_call),
            switches: status.switches,
            run_delay: read_line(pid, pid, "schedstat", parse_run_delay),
            resident_bytes: status.resident_bytes,
            descriptors: count_descriptors(pid),
            cgroup: Cgroup::of_process(pid, self.hierarchy.as_ref()),
            host: Pressure::read(|resource, room| {
                read_some(format!("/proc/pressure/{resource}"), room).map(<[u8]>::len)
            }),
        }));
        Stat::of_thread(pid, pid).is_some_and(|stat| stat.start_time == start_time).then_some(look)
    }

    fn cpu_time(&self, ticks: u64) -> Duration {
        let seconds = ticks / self.ticks_per_second;
        let rest = ticks % self.ticks_per_second;
        // Less than a second, and never near the bounds of the type.
        Duration::from_secs(seconds) + Duration::from_nanos(rest * 1_000_000_000 / self.ticks_per_second)
    }
}

impl Look {
    /// Whether the process is dead, and only its parent has not asked about it yet.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == State::Ended && self.threads <= 1
    }

    /// What has happened since an earlier look; `None` when that was at another process or not earlier.
    #[must_use]
    pub fn since(&self, earlier: &Look) -> Option<Change> {
        let is_same = (self.pid, self.start_time) == (earlier.pid, earlier.start_time);
        if !is_same || self.at <= earlier.at {
            return None;
        }
        let both = self.details.as_deref().zip(earlier.details.as_deref());
        // Where a counter seems to have gone back, as on a change of cgroup, nothing is known to have happened.
        let switches =
            both.and_then(|(now, then)| now.switches.zip(then.switches)).map(|(now, then)| Switches {
                voluntary: now.voluntary.saturating_sub(then.voluntary),
                involuntary: now.involuntary.saturating_sub(then.involuntary),
            });
        let throttled = both.and_then(|(now, then)| {
            let (now, then) = now.cgroup.as_ref().zip(then.cgroup.as_ref())?;
            let (now, then) = now.throttled.zip(then.throttled)?;
            Some(Throttled {
                periods: now.periods.saturating_sub(then.periods),
                time: now.time.saturating_sub(then.time),
            })
        });
        let run_delay = both.and_then(|(now, then)| now.run_delay.zip(then.run_delay));
        Some(Change {
            over: self.at - earlier.at,
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches,
            run_delay: run_delay.map(|(now, then)| now.saturating_sub(then)),
            throttled,
        })
    }
}

/// The pids that a process has in its PID namespaces, from this server's to its own, at most 32. One that is in a
/// container has there the last of them.
#[must_use]
pub fn namespace_pids(pid: u32) -> Vec<u32> {
    let mut room = vec![0; STATUS_ROOM];
    read_some(format!("/proc/{pid}/status"), &mut room)
        .map(|file| Status::parse(file).namespace_pids)
        .unwrap_or_default()
}

/// Counts the states of the first threads, and finds one beside the main thread that nothing interrupts.
fn look_at_threads(pid: u32) -> (States, Option<Stuck>) {
    let (mut states, mut stuck) = (States::default(), None);
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return (states, stuck) };
    for entry in entries.take(MOST_THREADS).map_while(Result::ok) {
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended in between is not there any more.
        let Some(stat) = Stat::of_thread(pid, thread) else { continue };
        let state = State::from_letter(stat.state);
        states.add(state);
        if state == State::Uninterruptible && thread != pid && stuck.is_none() {
            stuck = Some(Stuck { thread, channel: read_line(pid, thread, "wchan", parse_channel) });
        }
    }
    (states, stuck)
}

/// Counts open descriptors; `None` when that may not be known.
fn count_descriptors(pid: u32) -> Option<Descriptors> {
    let directory = format!("/proc/{pid}/fd");
    // From Linux 6.2 on the directory's size is their number, which anyone may know and which costs no walk.
    let open = match fs::metadata(&directory) {
        Ok(metadata) if metadata.len() > 0 => metadata.len(),
        _ => u64::try_from(fs::read_dir(&directory).ok()?.take(MOST_DESCRIPTORS).count()).unwrap_or(u64::MAX),
    };
    let limit = read_some(format!("/proc/{pid}/limits"), &mut [0; LIMITS_ROOM]).and_then(parse_open_files);
    Some(Descriptors { open, limit })
}

/// Reads a file of one thread that has one line.
fn read_line<T>(pid: u32, thread: u32, name: &str, parse: fn(&[u8]) -> Option<T>) -> Option<T> {
    parse(read_some(format!("/proc/{pid}/task/{thread}/{name}"), &mut [0; LINE_ROOM])?)
}

#[cfg(test)]
pub(super) mod tests;
