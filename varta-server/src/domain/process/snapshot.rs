use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::process::cgroup::{Cgroup, Throttled};
use crate::domain::process::exit::Death;
use crate::domain::process::pressure::Pressure;
use crate::domain::process::state::{State, States};

/// Threads of which the state is read.
pub const MAX_THREADS: usize = 64;
/// Descriptors that are counted one by one, on a kernel before Linux 6.2.
pub const MAX_DESCRIPTORS: usize = 4096;

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
    /// How many threads are in each state, of at most [`MAX_THREADS`].
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
    /// So many; [`MAX_DESCRIPTORS`] stands for any number above it on a kernel before Linux 6.2.
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

/// How often a thread stopped running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// To wait for something.
    pub voluntary: u64,
    /// Because others were to run.
    pub involuntary: u64,
}
