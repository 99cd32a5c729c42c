//! The identity of a local process beyond its pid, and the trait that looks it up.
//!
//! The kernel reuses pids; the start time distinguishes one process life from the next.

use std::num::NonZeroU64;

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
}

/// Looks up which process has a pid on this host.
pub trait Processes {
    /// The process that has `pid` now; `None` when there is none or it may not be seen.
    ///
    /// Called on an agent's first beat, on a frame that fits none of its sessions and on a beat after a
    /// silence: never for an ordinary beat.
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity>;
}

/// A local process, as requests of the tracker and the replies to them name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// The start time, in the kernel's ticks since boot.
    pub start_time: NonZeroU64,
}
