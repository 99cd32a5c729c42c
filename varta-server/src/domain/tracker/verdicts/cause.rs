//! Why a verdict changed.

use std::fmt;

use varta_proto::control::GoodbyeReason;

/// Why a verdict changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The first beat of an agent that was not known.
    FirstBeat,
    /// The agent reports another status than before.
    Reported,
    /// A beat came after a silence, or after a goodbye.
    Recovered,
    /// Another process has this pid now: a new incarnation.
    Restarted,
    /// It said that it panicked: its terminal frame came, or it died or fell silent after that.
    Panicked,
    /// Its process exited; `None` where the kernel does not tell with which status.
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
        /// Why it left; `None` where it did not say, or said something that is not known here.
        reason: Option<GoodbyeReason>,
    },
    /// Its process is stopped: by SIGSTOP, or in a debugger.
    Stopped,
    /// Its cgroup is frozen.
    Frozen,
    /// Its process waits in the kernel and cannot be interrupted.
    Blocked,
    /// Its process runs, and does not beat.
    Busy,
    /// Its process sleeps, and does not beat.
    Idle,
    /// Its beats may have been lost on the way: since the last of them the kernel threw away datagrams, or a queue was
    /// full.
    Lossy,
    /// Nothing came from an agent of another host until the deadline; nothing else can be known.
    Unreachable,
    /// Nothing came from an agent of this host until the deadline, and nobody could look at its process.
    Silent,
    /// The server could not see when the deadline passed.
    ObserverBlind,
    /// It was expected, and has not come.
    NeverSeen,
}

impl Cause {
    /// Every cause's name, in the order in which metrics list them.
    pub const NAMES: [&'static str; 18] = [
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
