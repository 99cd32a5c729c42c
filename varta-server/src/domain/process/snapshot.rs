//! Snapshots of a process: what the kernel shows at one moment, and what changed between two of them.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::process::cgroup::{Cgroup, Throttled};
use crate::domain::process::exit::ExitStatus;
use crate::domain::process::pressure::Pressure;
use crate::domain::process::state::{State, StateCounts};

/// The maximum number of threads whose state is read.
pub const MAX_THREADS: usize = 64;
/// The maximum number of descriptors that are counted one by one, on a kernel before Linux 6.2.
pub const MAX_DESCRIPTORS: usize = 4096;

/// How much of a process an inspection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InspectionDepth {
    /// One file: state and CPU time, at next to no cost.
    Quick,
    /// Everything that can be read, [`Details`] included.
    Full,
}

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSnapshot {
    /// When the snapshot was taken.
    pub at: MonoTime,
    /// The process id.
    pub pid: u32,
    /// The start time, in clock ticks since boot.
    pub start_time: NonZeroU64,
    /// The name of its command, at most 64 bytes.
    pub command: Box<str>,
    /// The state of the main thread; in a full snapshot that of the leading thread, see [`Details::lead`].
    pub state: State,
    /// How the process ended, if it is a zombie and the kernel reports it.
    pub death: Option<ExitStatus>,
    /// The number of threads.
    pub threads: u32,
    /// The CPU time of all threads, in steps of a clock tick (10 ms).
    pub cpu: Duration,
    /// The details; `None` for a quick sample.
    pub details: Option<Box<Details>>,
}

/// What a full snapshot has in addition to a quick sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The number of threads in each state, of at most [`MAX_THREADS`].
    pub states: StateCounts,
    /// The thread that is read in place of the main thread, where that has ended before the others: the first
    /// that lives.
    pub lead: Option<u32>,
    /// Whether the kernel writes a core dump of the process.
    pub dumping_core: bool,
    /// The kernel function in which the main thread waits, at most 64 bytes.
    pub channel: Option<Box<str>>,
    /// The number of the system call that the main thread is in.
    pub call: Option<u32>,
    /// The child that the main thread waits for until it runs its program or ends: one by vfork.
    pub awaits: Option<AwaitedChild>,
    /// Another thread in uninterruptible sleep: the first that was found.
    pub stuck: Option<BlockedThread>,
    /// The context switches of the main thread.
    pub switches: Option<ContextSwitches>,
    /// The run delay of the main thread: the time in which it waited for a CPU.
    pub run_delay: Option<Duration>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// The open descriptors.
    pub descriptors: Option<Descriptors>,
    /// The cgroup of the process.
    pub cgroup: Option<Cgroup>,
    /// The pressure on the whole host.
    pub host: Pressure,
}

/// A child that shares the memory of its parent, which waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedChild {
    /// Its pid.
    pub pid: u32,
    /// The kernel function in which it waits itself, at most 64 bytes.
    pub channel: Option<Box<str>>,
}

/// A thread in uninterruptible sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedThread {
    /// The thread id.
    pub thread: u32,
    /// The kernel function in which it waits, at most 64 bytes.
    pub channel: Option<Box<str>>,
}

/// The open descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Their number; [`MAX_DESCRIPTORS`] stands for any larger number on a kernel before Linux 6.2.
    pub open: u64,
    /// The limit on their number; `None` when there is none or it is not known.
    pub limit: Option<u64>,
}

/// What changed between two snapshots of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotDelta {
    /// The time between the snapshots.
    pub over: Duration,
    /// The CPU time that all threads used.
    pub cpu: Duration,
    /// The context switches of the main thread.
    pub switches: Option<ContextSwitches>,
    /// The run delay of the main thread.
    pub run_delay: Option<Duration>,
    /// How often and for how long its CPU limit throttled the cgroup.
    pub throttled: Option<Throttled>,
}

impl ProcessSnapshot {
    /// Whether the process is dead: a zombie that its parent has not reaped.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == State::Ended && self.threads <= 1
    }

    /// What changed since an earlier snapshot; `None` when that is of another process or not earlier.
    #[must_use]
    pub fn since(&self, earlier: &ProcessSnapshot) -> Option<SnapshotDelta> {
        let is_same = (self.pid, self.start_time) == (earlier.pid, earlier.start_time);
        if !is_same || self.at <= earlier.at {
            return None;
        }
        let both = self.details.as_deref().zip(earlier.details.as_deref());
        // A counter that seems to go back, as after a move to another cgroup, counts as unchanged.
        let switches =
            both.and_then(|(now, then)| now.switches.zip(then.switches)).map(|(now, then)| ContextSwitches {
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
        Some(SnapshotDelta {
            over: self.at - earlier.at,
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches,
            run_delay: run_delay.map(|(now, then)| now.saturating_sub(then)),
            throttled,
        })
    }
}

/// The context switches of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextSwitches {
    /// To wait for something.
    pub voluntary: u64,
    /// Because the scheduler preferred another thread.
    pub involuntary: u64,
}
