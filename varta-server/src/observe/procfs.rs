//! Snapshots of processes, read from `/proc`.
//!
//! What may not be read, or does not exist on this host, is `None` and no error. Each file is read up to a
//! bound, and of the threads only the first [`MAX_THREADS`], so that the cost of a snapshot hardly depends on
//! the process.

#[cfg(test)]
pub(in crate::observe) mod tests;

use std::fs;
use std::num::NonZeroU64;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::base::time::MonoTime;
use crate::domain::process::text::truncated;
use crate::domain::process::{
    BlockedThread, Cgroup, Descriptors, Details, MAX_DESCRIPTORS, MAX_THREADS, Pressure, ProcessSnapshot,
    State, StateCounts,
};
use crate::observe::cgroup::Hierarchy;
use crate::observe::read_bounded::read_some;
use crate::observe::stat::Stat;
use crate::observe::status::{Status, parse_call, parse_channel, parse_open_files, parse_run_delay};

/// The most bytes of a command's name: more than the kernel keeps.
pub(crate) const MAX_COMMAND_LEN: usize = 64;
/// The bytes read of `status`: enough for a process in many groups.
const STATUS_ROOM: usize = 16 * 1024;
const LIMITS_ROOM: usize = 4096;
/// The bytes read of files with one line.
const LINE_ROOM: usize = 512;

/// The facts about this host that snapshots need: its cgroup hierarchy and the length of a clock tick.
#[derive(Clone, Debug)]
pub struct ProcReader {
    hierarchy: Option<Hierarchy>,
    ticks_per_second: u64,
}

impl ProcReader {
    /// Reads the facts from the kernel.
    #[must_use]
    pub fn find() -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        // `USER_HZ` is 100 on x86-64 and 64-bit ARM.
        ProcReader {
            hierarchy: Hierarchy::find(),
            ticks_per_second: ticks.filter(|ticks| *ticks > 0).unwrap_or(100),
        }
    }

    /// Takes a quick sample at time `at` from one file: enough to tell whether a process exists, is stopped,
    /// or uses CPU.
    ///
    /// `None` without a process with this pid and start time.
    #[must_use]
    pub fn quick_sample(&self, pid: u32, start_time: NonZeroU64, at: MonoTime) -> Option<ProcessSnapshot> {
        let stat = Stat::of_process(pid).filter(|stat| stat.start_time == start_time)?;
        Some(ProcessSnapshot {
            at,
            pid,
            start_time,
            command: truncated(stat.name.as_bytes(), MAX_COMMAND_LEN),
            state: State::from_letter(stat.state),
            death: stat.death,
            threads: stat.threads,
            cpu: self.cpu_time(stat.cpu_ticks),
            details: None,
        })
    }

    /// Takes a full snapshot at time `at`.
    ///
    /// `None` without a process with this pid and start time, or if it exits meanwhile: a snapshot never
    /// mixes two processes.
    #[must_use]
    pub fn look(&self, pid: u32, start_time: NonZeroU64, at: MonoTime) -> Option<ProcessSnapshot> {
        let mut look = self.quick_sample(pid, start_time, at)?;
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
        // Less than a second, and far from the bounds of the type.
        Duration::from_secs(seconds) + Duration::from_nanos(rest * 1_000_000_000 / self.ticks_per_second)
    }
}

/// The pids of a process in its nested PID namespaces, from this server's to its own, at most 32. In a
/// container the process knows itself by the last.
#[must_use]
pub fn namespace_pids(pid: u32) -> Vec<u32> {
    let mut room = vec![0; STATUS_ROOM];
    read_some(format!("/proc/{pid}/status"), &mut room)
        .map(|file| Status::parse(file).namespace_pids)
        .unwrap_or_default()
}

/// The real user and the supplementary groups of a process; `None` when they cannot be read.
pub(crate) fn user_and_groups(pid: u32) -> Option<(u32, Vec<u32>)> {
    let mut room = vec![0; STATUS_ROOM];
    let status = Status::parse(read_some(format!("/proc/{pid}/status"), &mut room)?);
    Some((status.user?, status.groups))
}

/// Counts the states of the first threads, and finds one besides the main thread in uninterruptible sleep.
fn look_at_threads(pid: u32) -> (StateCounts, Option<BlockedThread>) {
    let (mut states, mut stuck) = (StateCounts::default(), None);
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return (states, stuck) };
    for entry in entries.take(MAX_THREADS).map_while(Result::ok) {
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The thread has ended since the directory was read.
        let Some(stat) = Stat::of_thread(pid, thread) else { continue };
        let state = State::from_letter(stat.state);
        states.add(state);
        if state == State::Uninterruptible && thread != pid && stuck.is_none() {
            stuck = Some(BlockedThread { thread, channel: read_line(pid, thread, "wchan", parse_channel) });
        }
    }
    (states, stuck)
}

/// Counts the open descriptors; `None` when that is not permitted.
fn count_descriptors(pid: u32) -> Option<Descriptors> {
    let directory = format!("/proc/{pid}/fd");
    // From Linux 6.2 on the size of the directory is their number, readable by all users and without a walk.
    let open = match fs::metadata(&directory) {
        Ok(metadata) if metadata.len() > 0 => metadata.len(),
        _ => u64::try_from(fs::read_dir(&directory).ok()?.take(MAX_DESCRIPTORS).count()).unwrap_or(u64::MAX),
    };
    let limit = read_some(format!("/proc/{pid}/limits"), &mut [0; LIMITS_ROOM]).and_then(parse_open_files);
    Some(Descriptors { open, limit })
}

/// Reads and parses a file of one thread that has one line.
fn read_line<T>(pid: u32, thread: u32, name: &str, parse: fn(&[u8]) -> Option<T>) -> Option<T> {
    parse(read_some(format!("/proc/{pid}/task/{thread}/{name}"), &mut [0; LINE_ROOM])?)
}
