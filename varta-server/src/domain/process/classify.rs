//! Why the process of a silent agent does not beat: one table from snapshots of the process to an activity.

use std::fmt;
use std::time::Duration;

use crate::domain::process::snapshot::ProcessSnapshot;
use crate::domain::process::state::State;

/// What a silent process is doing instead of beating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessActivity {
    /// The process is dead.
    Gone,
    /// Its cgroup is frozen.
    Frozen,
    /// A signal or a debugger has stopped it.
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
            | ProcessActivity::Frozen
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
            ProcessActivity::Frozen => "frozen",
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

/// The kernel function in which the threads of a frozen cgroup wait, in version 2 and in version 1. A freeze
/// by version 1 shows nowhere else.
const FREEZERS: [&str; 2] = ["do_freezer_trap", "__refrigerator"];
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
    /// One is stopped or traced.
    Held,
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
        if has(State::Stopped) || has(State::Traced) {
            Threads::Held
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
    } else if is_frozen(now) {
        (ProcessActivity::Frozen, "its cgroup is frozen and must be thawed for it to go on")
    } else {
        use Activity::{NotKnown, Rested, Starved, Worked};
        use State::{Ended, Other, Running, Sleeping, Stopped, Traced, Uninterruptible};
        // The main thread comes first: as far as known, it is the thread that beats.
        match (now.state, activity, Threads::of(now)) {
            (Stopped, _, _) => (ProcessActivity::Stopped, "a signal has stopped it; SIGCONT lets it go on"),
            (Traced, _, _) => (ProcessActivity::Stopped, "a debugger holds it"),
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
            (Sleeping | Ended | Other, _, Threads::Held) => {
                (ProcessActivity::Stopped, "one of its threads is stopped by a signal or held by a debugger")
            }
            (Sleeping | Ended | Other, Worked, Threads::Stuck | Threads::Running | Threads::Quiet) => {
                (ProcessActivity::Busy, "it uses CPU without beating")
            }
            (Sleeping | Ended | Other, Starved, Threads::Stuck | Threads::Running | Threads::Quiet) => {
                (ProcessActivity::Busy, "it is ready to run and is given hardly any CPU")
            }
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
    by_cgroup || details.channel.as_deref().is_some_and(|channel| FREEZERS.contains(&channel))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::base::time::MonoTime;
    use crate::domain::process::cgroup::Cgroup;
    use crate::domain::process::snapshot::Details;
    use crate::domain::process::state::StateCounts;

    /// A snapshot of a process whose threads have the states of these letters, the main thread first.
    fn look(letters: &str) -> ProcessSnapshot {
        let mut states = StateCounts::default();
        for letter in letters.bytes() {
            states.add(State::from_letter(letter));
        }
        ProcessSnapshot {
            at: MonoTime::from_secs(10),
            pid: 7,
            start_time: NonZeroU64::MIN,
            command: "worker".into(),
            state: State::from_letter(letters.as_bytes()[0]),
            death: None,
            threads: states.total(),
            cpu: Duration::from_secs(5),
            details: Some(Box::new(Details {
                states,
                run_delay: Some(Duration::from_secs(3)),
                ..Details::default()
            })),
        }
    }

    /// The same process a second before, with so much less CPU time and so much less run delay.
    fn before(now: &ProcessSnapshot, cpu_ms: u64, delay_ms: u64) -> ProcessSnapshot {
        let mut earlier = now.clone();
        earlier.at = MonoTime::from_secs(9);
        earlier.cpu -= Duration::from_millis(cpu_ms);
        let details = earlier.details.as_mut().unwrap();
        details.run_delay = details.run_delay.map(|delay| delay - Duration::from_millis(delay_ms));
        earlier
    }

    #[test]
    fn the_table_is_this() {
        use ProcessActivity::{Blocked, Busy, Gone, Idle, Stopped, Unknown};
        // The threads; CPU time and run delay in the second before, in milliseconds, or nothing to compare
        // with.
        let table = [
            ("Z", None, Gone),
            ("X", Some((0, 0)), Gone),
            ("T", None, Stopped),
            ("TT", Some((900, 0)), Stopped),
            ("t", None, Stopped),
            ("St", None, Stopped),
            ("ST", Some((0, 0)), Stopped),
            ("D", None, Blocked),
            ("D", Some((0, 0)), Blocked),
            ("DR", Some((900, 0)), Blocked),
            ("SD", Some((0, 0)), Blocked),
            ("SD", None, Blocked),
            ("SD", Some((900, 0)), Busy),
            ("R", None, Busy),
            ("R", Some((1000, 0)), Busy),
            ("R", Some((0, 990)), Busy),
            ("R", Some((0, 0)), Busy),
            ("S", Some((250, 0)), Busy),
            ("S", Some((0, 500)), Busy),
            ("SR", None, Busy),
            ("SR", Some((900, 0)), Busy),
            ("ZR", Some((900, 0)), Busy),
            ("S", None, Idle),
            ("SSSS", Some((0, 0)), Idle),
            ("S", Some((240, 490)), Idle),
            // It runs now, as it did a second before.
            ("SR", Some((0, 0)), Busy),
            ("I", None, Idle),
            // The main thread has ended, another goes on.
            ("ZS", None, Idle),
            ("P", None, Unknown),
            ("P", Some((0, 0)), Unknown),
        ];
        for (letters, change, doing) in table {
            let now = look(letters);
            let earlier = change.map(|(cpu, delay)| before(&now, cpu, delay));
            let explained = classify(&now, earlier.as_ref());
            assert_eq!(explained.activity, doing, "{letters} {change:?}: {}", explained.sentence);
        }
    }

    #[test]
    fn who_is_ready_to_run_and_does_not_is_told_from_who_runs() {
        let now = look("R");
        let starved = classify(&now, Some(&before(&now, 0, 0))).sentence;
        assert_ne!(starved, classify(&now, Some(&before(&now, 900, 0))).sentence);
        assert_eq!(starved, classify(&look("S"), Some(&before(&look("S"), 0, 900))).sentence);
    }

    #[test]
    fn a_thread_that_happens_to_run_at_one_moment_does_not_make_a_process_busy() {
        let rested = before(&look("SS"), 0, 0);
        assert_eq!(classify(&look("SR"), Some(&rested)).activity, ProcessActivity::Idle);
    }

    #[test]
    fn a_frozen_cgroup_explains_whatever_its_threads_seem_to_do() {
        for letters in ["S", "D", "T", "R"] {
            let mut now = look(letters);
            now.details.as_mut().unwrap().cgroup = Some(Cgroup { frozen: Some(true), ..Cgroup::default() });
            assert_eq!(classify(&now, None).activity, ProcessActivity::Frozen);
        }
        let mut old = look("D");
        old.details.as_mut().unwrap().channel = Some("__refrigerator".into());
        assert_eq!(classify(&old, None).activity, ProcessActivity::Frozen);
    }

    #[test]
    fn a_glance_is_enough_for_the_plain_cases() {
        for (letters, doing) in [
            ("S", ProcessActivity::Idle),
            ("D", ProcessActivity::Blocked),
            ("T", ProcessActivity::Stopped),
            ("Z", ProcessActivity::Gone),
        ] {
            let glance = ProcessSnapshot { details: None, ..look(letters) };
            assert_eq!(classify(&glance, None).activity, doing);
        }
    }

    #[test]
    fn looks_that_are_too_close_or_at_another_process_say_nothing_of_its_work() {
        let now = look("S");
        let close = ProcessSnapshot { at: MonoTime::from_millis(9_960), cpu: Duration::ZERO, ..now.clone() };
        let other = ProcessSnapshot { pid: 8, cpu: Duration::ZERO, ..before(&now, 0, 0) };
        for earlier in [close, other] {
            assert_eq!(classify(&now, Some(&earlier)).sentence, "it sleeps");
        }
    }
}
