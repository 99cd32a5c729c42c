//! Snapshots of processes, read from `/proc`.
//!
//! What may not be read, or does not exist on this host, is `None` and no error. Each file is read up to a
//! bound, and of the threads only the first [`MAX_THREADS`], so that the cost of a snapshot hardly depends on
//! the process.

#[cfg(test)]
pub(in crate::observe) mod tests;

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::base::time::MonoTime;
use crate::domain::process::text::truncated;
use crate::domain::process::{
    AwaitedChild, BlockedThread, Cgroup, Descriptors, Details, MAX_DESCRIPTORS, MAX_THREADS, Pressure,
    ProcessSnapshot, State, StateCounts, waits_for_child,
};
use crate::observe::cgroup::read_lines_of;
use crate::observe::hierarchy::Hierarchies;
use crate::observe::kernel_file::read_some;
use crate::observe::stat::{self, Stat};
use crate::observe::status::{
    Status, parse_call, parse_channel, parse_children, parse_last_child, parse_open_files, parse_run_delay,
};

/// The most bytes of a command's name: more than the kernel keeps.
pub(crate) const MAX_COMMAND_LEN: usize = 64;
/// The bytes read of `status`: enough for a process in many groups.
const STATUS_ROOM: usize = 16 * 1024;
const LIMITS_ROOM: usize = 4096;
/// The bytes read of files with one line.
const LINE_ROOM: usize = 512;
/// The bytes read of a list of children: some thousands. The last is the newest.
const CHILDREN_ROOM: usize = 16 * 1024;
/// The most processes among which a child is searched.
const MAX_SEARCHED: usize = 1_024;

/// The facts about this host that snapshots need: its cgroup hierarchies and the length of a clock tick.
#[derive(Clone, Debug)]
pub struct ProcReader {
    /// `/proc`, except in tests.
    proc: PathBuf,
    hierarchies: Hierarchies,
    ticks_per_second: u64,
}

impl ProcReader {
    /// Reads the facts from the kernel.
    #[must_use]
    pub fn find() -> Self {
        ProcReader::at("/proc".into(), Hierarchies::find())
    }

    /// Reads another tree in place of `/proc`.
    pub(crate) fn at(proc: PathBuf, hierarchies: Hierarchies) -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        // `USER_HZ` is 100 on x86-64 and 64-bit ARM.
        ProcReader { proc, hierarchies, ticks_per_second: ticks.filter(|ticks| *ticks > 0).unwrap_or(100) }
    }

    /// Takes a quick sample at time `at` from one file: enough to tell whether a process exists, is stopped,
    /// or uses CPU.
    ///
    /// `None` without a process with this pid and start time.
    #[must_use]
    pub fn quick_sample(&self, pid: u32, start_time: NonZeroU64, at: MonoTime) -> Option<ProcessSnapshot> {
        let stat = self.stat(&self.file(pid, "stat")).filter(|stat| stat.start_time == start_time)?;
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

    /// The child of a process that was started then, which has this pid for its parent, whose namespace may be another
    /// than this server's: its pid and its start time here. `None` also if the kernel does not list the children.
    pub(crate) fn child(&self, parent: u32, started: NonZeroU64, pid: u32) -> Option<(u32, NonZeroU64)> {
        let mut room = vec![0; CHILDREN_ROOM];
        let children = read_some(self.of_thread(parent, parent, "children"), &mut room).map(parse_children);
        // First the one that is meant if both are in one namespace.
        let candidates = [pid].into_iter().chain(children.into_iter().flatten());
        let is_meant = |candidate: &u32| {
            let mut room = vec![0; STATUS_ROOM];
            let status = read_some(self.file(*candidate, "status"), &mut room).map(Status::parse);
            let known_as = |status: Status| status.namespace_pids.last().map_or(*candidate, |pid| *pid);
            status.is_some_and(|status| known_as(status) == pid)
        };
        let mut own = candidates.filter_map(|candidate| {
            let stat = self.stat(&self.file(candidate, "stat")).filter(|stat| stat.parent == parent)?;
            Some((candidate, stat.start_time))
        });
        let child = own.find(|(candidate, _)| is_meant(candidate));
        let parent = self.stat(&self.file(parent, "stat"));
        child.filter(|_| parent.is_some_and(|parent| parent.start_time == started))
    }

    /// Takes a full snapshot at time `at`.
    ///
    /// Of a process whose main thread has ended before the others, the first thread that lives is read in its
    /// place: the kernel shows no memory, descriptors or waits of an ended thread.
    ///
    /// `None` without a process with this pid and start time, or if it exits meanwhile: a snapshot never
    /// mixes two processes.
    #[must_use]
    pub fn look(&self, pid: u32, start_time: NonZeroU64, at: MonoTime) -> Option<ProcessSnapshot> {
        let mut look = self.quick_sample(pid, start_time, at)?;
        let Threads { states, stuck, first_living } = self.look_at_threads(pid);
        let main_has_ended = look.state == State::Ended && !look.is_dead();
        let lead = first_living.filter(|_| main_has_ended);
        let thread = lead.map_or(pid, |(thread, _)| thread);
        if let Some((_, state)) = lead {
            look.state = state;
        }
        let mut room = vec![0; STATUS_ROOM];
        let status = read_some(self.of_thread(pid, thread, "status"), &mut room);
        let status = status.map(Status::parse).unwrap_or_default();
        let channel = self.line(pid, thread, "wchan", parse_channel);
        let waits = look.state == State::Uninterruptible && channel.as_deref().is_some_and(waits_for_child);
        look.details = Some(Box::new(Details {
            states,
            stuck,
            lead: lead.map(|(thread, _)| thread),
            dumping_core: status.dumping_core,
            call: self.line(pid, thread, "syscall", parse_call),
            awaits: if waits { self.newest_child(pid, thread) } else { None },
            channel,
            switches: status.switches,
            run_delay: self.line(pid, thread, "schedstat", parse_run_delay),
            resident_bytes: status.resident_bytes,
            descriptors: self.count_descriptors(pid, thread),
            cgroup: read_lines_of(&self.file(pid, "cgroup"))
                .and_then(|lines| Cgroup::read(&lines, &self.hierarchies)),
            host: self.host_pressure(),
        }));
        let is_same = self.stat(&self.of_thread(pid, pid, "stat"));
        is_same.is_some_and(|stat| stat.start_time == start_time).then_some(look)
    }

    /// The pressure on the host.
    pub(crate) fn host_pressure(&self) -> Pressure {
        Pressure::read(|resource, room| {
            read_some(self.proc.join(format!("pressure/{resource}")), room).map(<[u8]>::len)
        })
    }

    fn file(&self, pid: u32, name: &str) -> PathBuf {
        self.proc.join(format!("{pid}/{name}"))
    }

    fn of_thread(&self, pid: u32, thread: u32, name: &str) -> PathBuf {
        self.proc.join(format!("{pid}/task/{thread}/{name}"))
    }

    fn stat(&self, file: &Path) -> Option<Stat> {
        Stat::parse(read_some(file, &mut [0; stat::ROOM])?)
    }

    /// Reads and parses a file of one thread that has one line.
    fn line<T>(&self, pid: u32, thread: u32, name: &str, parse: fn(&[u8]) -> Option<T>) -> Option<T> {
        parse(read_some(self.of_thread(pid, thread, name), &mut [0; LINE_ROOM])?)
    }

    /// Counts the states of the first threads, and finds the first that lives, and one besides the main
    /// thread in uninterruptible sleep.
    fn look_at_threads(&self, pid: u32) -> Threads {
        let mut threads = Threads::default();
        let Ok(entries) = fs::read_dir(self.file(pid, "task")) else { return threads };
        for entry in entries.take(MAX_THREADS).map_while(Result::ok) {
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // The thread has ended since the directory was read.
            let Some(stat) = self.stat(&self.of_thread(pid, thread, "stat")) else { continue };
            let state = State::from_letter(stat.state);
            threads.states.add(state);
            if state != State::Ended && threads.first_living.is_none() {
                threads.first_living = Some((thread, state));
            }
            if state == State::Uninterruptible && thread != pid && threads.stuck.is_none() {
                let channel = self.line(pid, thread, "wchan", parse_channel);
                threads.stuck = Some(BlockedThread { thread, channel });
            }
        }
        threads
    }

    /// The child that a thread has started last. A kernel without lists of children has it found among the
    /// first [`MAX_SEARCHED`] processes.
    fn newest_child(&self, pid: u32, thread: u32) -> Option<AwaitedChild> {
        let mut room = vec![0; CHILDREN_ROOM];
        let child = match read_some(self.of_thread(pid, thread, "children"), &mut room) {
            Some(children) => parse_last_child(children)?,
            None => self.search_newest_child(pid)?,
        };
        Some(AwaitedChild { pid: child, channel: self.line(child, child, "wchan", parse_channel) })
    }

    fn search_newest_child(&self, parent: u32) -> Option<u32> {
        let entries = fs::read_dir(&self.proc).ok()?.map_while(Result::ok);
        let mut pids: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // Most children have a higher pid than their parent.
        pids.sort_unstable_by_key(|pid| (*pid < parent, *pid));
        let of_parent = |pid: u32| {
            let stat = self.stat(&self.file(pid, "stat")).filter(|stat| stat.parent == parent)?;
            Some((stat.start_time, pid))
        };
        pids.into_iter().take(MAX_SEARCHED).filter_map(of_parent).max().map(|(_, child)| child)
    }

    /// Counts the open descriptors, which all threads share; `None` when that is not permitted.
    fn count_descriptors(&self, pid: u32, thread: u32) -> Option<Descriptors> {
        let directory = self.of_thread(pid, thread, "fd");
        // From Linux 6.2 on the size of the directory is their number, readable by all users and without a
        // walk.
        let open = match fs::metadata(&directory) {
            Ok(metadata) if metadata.len() > 0 => metadata.len(),
            _ => u64::try_from(fs::read_dir(&directory).ok()?.take(MAX_DESCRIPTORS).count())
                .unwrap_or(u64::MAX),
        };
        let limits = self.of_thread(pid, thread, "limits");
        let limit = read_some(limits, &mut [0; LIMITS_ROOM]).and_then(parse_open_files);
        Some(Descriptors { open, limit })
    }

    fn cpu_time(&self, ticks: u64) -> Duration {
        let seconds = ticks / self.ticks_per_second;
        let rest = ticks % self.ticks_per_second;
        // Less than a second, and far from the bounds of the type.
        Duration::from_secs(seconds) + Duration::from_nanos(rest * 1_000_000_000 / self.ticks_per_second)
    }
}

/// What is read of the threads of a process.
#[derive(Default)]
struct Threads {
    states: StateCounts,
    stuck: Option<BlockedThread>,
    first_living: Option<(u32, State)>,
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
