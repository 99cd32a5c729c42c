//! Causes of transitions, as logs, metrics and alerts name them.

use std::fmt;

use varta_proto::control::GoodbyeReason;

/// Why a verdict changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The first beat of an agent that was not known.
    FirstBeat,
    /// The agent reports another status than before.
    Reported,
    /// A beat came after a silence or a goodbye.
    Recovered,
    /// Another process has this pid now, or took the place of one with this name: a new incarnation.
    Restarted,
    /// It panicked: its terminal frame came, or it died or fell silent after that.
    Panicked,
    /// Its process exited; `None` where the kernel does not report the status.
    Exited {
        /// The exit status.
        code: Option<u8>,
    },
    /// Its process was killed.
    Killed {
        /// The signal.
        signal: u8,
    },
    /// It said goodbye.
    Goodbye {
        /// The reason; `None` where the agent gave none, or one that is not known here.
        reason: Option<GoodbyeReason>,
    },
    /// The kernel killed its process because a cgroup, or the host, was out of memory.
    OomKilled,
    /// Its process is stopped by a signal.
    Stopped,
    /// A debugger or another tracer holds its process.
    Traced,
    /// Its cgroup is frozen.
    Frozen,
    /// The kernel writes the core dump of its process.
    DumpingCore,
    /// Its process is in uninterruptible sleep, or waits for a file system in user space.
    Blocked,
    /// Its process runs, and does not beat.
    Busy,
    /// Its process sleeps, and does not beat.
    Idle,
    /// Its beats may have been lost on the way: since the last of them the kernel dropped datagrams.
    Lossy,
    /// No beat came from an agent of another host until the deadline; nothing else can be known.
    Unreachable,
    /// No beat came from an agent of this host until the deadline, and no inspection of its process explains
    /// that.
    Silent,
    /// The server may not have observed its beats: there was an observer gap or mass silence.
    ObserverBlind,
    /// It was expected, and did not come in time.
    NeverSeen,
    /// Its beats may have been refused by the kernel: since the last of them the queue of the Unix socket was
    /// full.
    QueueFull,
    /// It was reported to have failed.
    Failed {
        /// The exit status that was reported.
        status: Option<u8>,
    },
    /// A run of a job was due and has not begun.
    Late,
    /// A run of a job takes longer than it may.
    Overran,
    /// A run of a job has begun while another was under way.
    Overlapped,
    /// It beats, and the counter of its progress stands.
    NoProgress,
    /// The counter of its progress moves again.
    Progressed,
}

impl Cause {
    /// Every cause's name, in the order in which metrics list them.
    pub const NAMES: [&'static str; 28] = [
        "first_beat",
        "reported",
        "recovered",
        "restarted",
        "panicked",
        "exited",
        "killed",
        "goodbye",
        "stopped",
        "frozen",
        "blocked",
        "busy",
        "idle",
        "lossy",
        "unreachable",
        "silent",
        "observer_blind",
        "never_seen",
        "oom_killed",
        "traced",
        "dumping_core",
        "queue_full",
        "failed",
        "late",
        "overran",
        "overlapped",
        "no_progress",
        "progressed",
    ];

    /// Its place in [`Cause::NAMES`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Cause::FirstBeat => 0,
            Cause::Reported => 1,
            Cause::Recovered => 2,
            Cause::Restarted => 3,
            Cause::Panicked => 4,
            Cause::Exited { .. } => 5,
            Cause::Killed { .. } => 6,
            Cause::Goodbye { .. } => 7,
            Cause::Stopped => 8,
            Cause::Frozen => 9,
            Cause::Blocked => 10,
            Cause::Busy => 11,
            Cause::Idle => 12,
            Cause::Lossy => 13,
            Cause::Unreachable => 14,
            Cause::Silent => 15,
            Cause::ObserverBlind => 16,
            Cause::NeverSeen => 17,
            Cause::OomKilled => 18,
            Cause::Traced => 19,
            Cause::DumpingCore => 20,
            Cause::QueueFull => 21,
            Cause::Failed { .. } => 22,
            Cause::Late => 23,
            Cause::Overran => 24,
            Cause::Overlapped => 25,
            Cause::NoProgress => 26,
            Cause::Progressed => 27,
        }
    }

    /// The value of the metric label `cause`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
