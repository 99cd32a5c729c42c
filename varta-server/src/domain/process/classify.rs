//! Why the process of a silent agent does not beat: one table from snapshots of the process to an activity.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::domain::process::snapshot::ProcessSnapshot;
use crate::domain::process::state::State;

/// What a silent process is doing instead of beating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessActivity {
    /// The process is dead.
    Gone,
    /// The kernel writes its core dump, after which it ends.
    DumpingCore,
    /// Its cgroup is frozen.
    Frozen,
    /// A debugger or another tracer holds it.
    Traced,
    /// A signal has stopped it.
    Stopped,
    /// It waits in the kernel for something that no signal interrupts.
    Blocked,
    /// It runs, or waits only for a CPU.
    Busy,
    /// It sleeps.
    Idle,
    /// The kernel shows none of these.
    Unknown,
}

impl ProcessActivity {
    /// Whether the process cannot beat at all in this state.
    #[must_use]
    pub const fn is_blocked(self) -> bool {
        match self {
            ProcessActivity::Gone
            | ProcessActivity::DumpingCore
            | ProcessActivity::Frozen
            | ProcessActivity::Traced
            | ProcessActivity::Stopped
            | ProcessActivity::Blocked => true,
            ProcessActivity::Busy | ProcessActivity::Idle | ProcessActivity::Unknown => false,
        }
    }

    /// The activity's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ProcessActivity::Gone => "gone",
            ProcessActivity::DumpingCore => "dumping_core",
            ProcessActivity::Frozen => "frozen",
            ProcessActivity::Traced => "traced",
            ProcessActivity::Stopped => "stopped",
            ProcessActivity::Blocked => "blocked",
            ProcessActivity::Busy => "busy",
            ProcessActivity::Idle => "idle",
            ProcessActivity::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ProcessActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A process's activity, and what a person should know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The activity.
    pub activity: ProcessActivity,
    /// A sentence without its full stop: one of a fixed set, with no text from outside.
    pub sentence: &'static str,
}

/// The kernel functions in which the threads of a frozen cgroup wait, where its files cannot be read. In
/// version 1 some wait on in the function in which they slept before.
const FREEZERS: [&str; 2] = ["do_freezer_trap", "__refrigerator"];
/// The function in which the frozen trap of version 2 is compiled in. A thread that sleeps there, and is
/// neither stopped nor traced, is in that trap.
const SIGNAL_DELIVERY: &str = "get_signal";
/// The functions in which a parent waits for a child that shares its memory: in the order of kernels, newest
/// first.
const VFORK: [&str; 4] = ["kernel_clone", "wait_for_vfork_done", "_do_fork", "do_fork"];
/// The function in which a thread waits for the answer of a file system in user space.
const FUSE: &str = "request_wait_answer";
/// The shortest time between two snapshots that says anything: CPU time is counted in hundredths of a second.
const MIN_CHANGE: Duration = Duration::from_millis(50);
/// The share of one CPU from which on a process counts as working, as a divisor: a quarter. Timers and
/// garbage collection stay below it.
const WORK_SHARE: u32 = 4;
/// The share of the time spent waiting for a CPU from which on a process counts as starved, as a divisor:
/// half.
const STARVED_SHARE: u32 = 2;

/// What a process did between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// There is no earlier snapshot to compare with.
    NotKnown,
    /// It used CPU.
    Worked,
    /// It used little, and was ready to use more.
    Starved,
    /// It used little.
    Rested,
}

impl Activity {
    fn of(now: &ProcessSnapshot, earlier: Option<&ProcessSnapshot>) -> Self {
        let compared = earlier.and_then(|earlier| Some((earlier, now.since(earlier)?)));
        let Some((earlier, change)) = compared.filter(|(_, change)| change.over >= MIN_CHANGE) else {
            return Activity::NotKnown;
        };
        let waited = change.run_delay.unwrap_or_default().saturating_mul(STARVED_SHARE) >= change.over;
        // The run delay of the other threads is not known, but a process that runs at both moments has not
        // rested.
        if change.cpu.saturating_mul(WORK_SHARE) >= change.over {
            Activity::Worked
        } else if waited || (wants_cpu(now) && wants_cpu(earlier)) {
            Activity::Starved
        } else {
            Activity::Rested
        }
    }
}

/// Whether some thread of the process runs, or waits only for a CPU.
fn wants_cpu(look: &ProcessSnapshot) -> bool {
    look.state == State::Running || count(look, State::Running) > 0
}

fn count(look: &ProcessSnapshot, state: State) -> u32 {
    look.details.as_ref().map_or(0, |details| details.states.count(state))
}

/// The state among all threads that explains most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    /// One is traced.
    Traced,
    /// One is stopped.
    Held,
    /// One waits for a child that shares the memory of the process.
    Forking,
    /// One is in uninterruptible sleep.
    Stuck,
    /// One runs.
    Running,
    /// None of these, or the threads were not inspected.
    Quiet,
}

impl Threads {
    fn of(look: &ProcessSnapshot) -> Self {
        let has = |state| count(look, state) > 0;
        let stuck = look.details.as_ref().and_then(|details| details.stuck.as_ref());
        if has(State::Traced) {
            Threads::Traced
        } else if has(State::Stopped) {
            Threads::Held
        } else if stuck.is_some_and(|stuck| stuck.channel.as_deref().is_some_and(waits_for_child)) {
            Threads::Forking
        } else if has(State::Uninterruptible) {
            Threads::Stuck
        } else if has(State::Running) {
            Threads::Running
        } else {
            Threads::Quiet
        }
    }
}

/// Classifies what a process does instead of beating, from a snapshot and an earlier one if there is one.
/// From one snapshot alone a process that works, but sleeps at this moment, looks idle.
#[must_use]
pub fn classify(now: &ProcessSnapshot, earlier: Option<&ProcessSnapshot>) -> Explanation {
    let activity = Activity::of(now, earlier);
    let (doing, sentence) = if now.is_dead() {
        (ProcessActivity::Gone, "it is dead, and its parent has not asked for its exit status")
    } else if now.details.as_ref().is_some_and(|details| details.dumping_core) {
        (ProcessActivity::DumpingCore, "the kernel writes its core dump, after which it ends")
    } else if is_frozen(now) {
        (ProcessActivity::Frozen, "its cgroup is frozen and must be thawed for it to go on")
    } else {
        use Activity::{NotKnown, Rested, Starved, Worked};
        use State::{Ended, Other, Running, Sleeping, Stopped, Traced, Uninterruptible};
        // The main thread comes first: as far as known, it is the thread that beats.
        match (now.state, activity, Threads::of(now)) {
            (Stopped, _, _) => (ProcessActivity::Stopped, "a signal has stopped it; SIGCONT lets it go on"),
            (Traced, _, _) => (ProcessActivity::Traced, "a debugger or another tracer holds it"),
            (Uninterruptible | Sleeping, _, _) if waits_in(now, |channel| channel == FUSE) => (
                ProcessActivity::Blocked,
                "it waits for a file system in user space (FUSE), whose program does not answer",
            ),
            (Uninterruptible, _, _) if waits_in(now, waits_for_child) => (
                ProcessActivity::Blocked,
                "it waits for a child that shares its memory (vfork) to run its program or to end",
            ),
            (Uninterruptible, _, _) => (
                ProcessActivity::Blocked,
                "it waits in the kernel for what no signal interrupts, such as a disk or a network file system",
            ),
            (Running, NotKnown | Worked, _) => (ProcessActivity::Busy, "it runs without beating"),
            (Running, Starved, _) => {
                (ProcessActivity::Busy, "it is ready to run and is given hardly any CPU")
            }
            (Running, Rested, _) => {
                (ProcessActivity::Busy, "it runs at this moment and has hardly used the CPU")
            }
            (Sleeping | Ended | Other, _, Threads::Traced) => {
                (ProcessActivity::Traced, "a debugger or another tracer holds one of its threads")
            }
            (Sleeping | Ended | Other, _, Threads::Held) => {
                (ProcessActivity::Stopped, "one of its threads is stopped by a signal")
            }
            (
                Sleeping | Ended | Other,
                Worked,
                Threads::Forking | Threads::Stuck | Threads::Running | Threads::Quiet,
            ) => (ProcessActivity::Busy, "it uses CPU without beating"),
            (
                Sleeping | Ended | Other,
                Starved,
                Threads::Forking | Threads::Stuck | Threads::Running | Threads::Quiet,
            ) => (ProcessActivity::Busy, "it is ready to run and is given hardly any CPU"),
            (Sleeping | Ended | Other, NotKnown | Rested, Threads::Forking) => (
                ProcessActivity::Blocked,
                "one of its threads waits for a child that shares its memory (vfork) to run its program or to end",
            ),
            (Sleeping | Ended | Other, NotKnown | Rested, Threads::Stuck) => (
                ProcessActivity::Blocked,
                "one of its threads waits in the kernel for what no signal interrupts, such as a disk or a network \
                 file system",
            ),
            (Sleeping | Ended | Other, NotKnown, Threads::Running) => {
                (ProcessActivity::Busy, "one of its threads runs, and it does not beat")
            }
            (Sleeping | Ended, NotKnown, Threads::Quiet) => (ProcessActivity::Idle, "it sleeps"),
            (Sleeping | Ended, Rested, Threads::Running | Threads::Quiet) => {
                (ProcessActivity::Idle, "it sleeps and has hardly used the CPU")
            }
            (Other, NotKnown, Threads::Quiet) | (Other, Rested, Threads::Running | Threads::Quiet) => {
                (ProcessActivity::Unknown, "the kernel shows no reason")
            }
        }
    };
    Explanation { activity: doing, sentence }
}

fn is_frozen(look: &ProcessSnapshot) -> bool {
    let Some(details) = &look.details else { return false };
    let by_cgroup = details.cgroup.as_ref().and_then(|cgroup| cgroup.frozen) == Some(true);
    let by_version_2 = look.state == State::Sleeping && waits_in(look, |channel| channel == SIGNAL_DELIVERY);
    by_cgroup || by_version_2 || waits_in(look, |channel| FREEZERS.contains(&channel))
}

/// Whether the main thread waits in such a kernel function.
fn waits_in(look: &ProcessSnapshot, is_it: impl Fn(&str) -> bool) -> bool {
    look.details.as_ref().and_then(|details| details.channel.as_deref()).is_some_and(is_it)
}

/// Whether a parent waits in this kernel function for a child that shares its memory.
pub(crate) fn waits_for_child(channel: &str) -> bool {
    VFORK.contains(&channel)
}
