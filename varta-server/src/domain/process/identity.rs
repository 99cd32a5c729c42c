//! The identity of a local process beyond its pid, and the trait that looks it up.
//!
//! The kernel reuses pids; the start time distinguishes one process life from the next.

use std::num::NonZeroU64;

use crate::domain::process::ExitStatus;

/// The identity of a process beyond its pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The start time, in the kernel's ticks since boot. Together with the pid it identifies one process
    /// life.
    pub start_time: NonZeroU64,
    /// The name of the process, its unit or its container.
    pub name: String,
    /// Whether the name is that of its unit or container and not of its command, so that a successor of the
    /// process has the same name and a stranger has not.
    pub is_group: bool,
    /// Whether the name is that of a unit that this host's service manager knows.
    pub is_unit: bool,
    /// What it has in common with a process that takes its place.
    pub lineage: Lineage,
    /// Whether it has ended, and its parent has not asked for its status yet.
    pub has_ended: bool,
}

impl ProcessIdentity {
    /// A living process that is known by its command's name and nothing else.
    #[must_use]
    pub fn of_command(start_time: NonZeroU64, name: String) -> Self {
        let lineage = Lineage::default();
        ProcessIdentity { start_time, name, is_group: false, is_unit: false, lineage, has_ended: false }
    }
}

/// What a process has in common with the one that takes its place, as far as it could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// A hash of its command line and its working directory; 0 where that is unknown.
    pub command: u32,
}

impl Lineage {
    /// Whether both were started by the same command in the same directory.
    #[must_use]
    pub const fn has_same_command(self, other: Lineage) -> bool {
        self.command != 0 && self.command == other.command
    }
}

/// Looks up which process has a pid on this host.
pub trait Processes {
    /// The process that has `pid` now; `None` when there is none or it may not be seen.
    ///
    /// `Some` only of a process that exists: failing to read it, as without descriptors, is no evidence.
    ///
    /// Called on an agent's first beat, on a frame that fits none of its sessions and on a beat after a
    /// silence: never for an ordinary beat.
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity>;

    /// The processes whose end is known and has not been handled yet, so that a newcomer is recognised as the
    /// successor of one of them. Called on the first beat of an agent.
    fn ended(&mut self) -> Vec<EndedProcess> {
        Vec::new()
    }
}

/// A process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedProcess {
    /// The process.
    pub process: ProcessId,
    /// How it ended.
    pub death: ExitStatus,
    /// What it has in common with its successor.
    pub lineage: Lineage,
}

/// A local process, as requests of the tracker and the replies to them name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// The start time, in the kernel's ticks since boot.
    pub start_time: NonZeroU64,
}
