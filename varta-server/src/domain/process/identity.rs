use std::num::NonZeroU64;

/// Who a process is, beyond its pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// When it started, in the kernel's own ticks since boot. Together with the pid it names one process life.
    pub start_time: NonZeroU64,
    /// What it is called.
    pub name: String,
    /// Whether that is the name of its unit or container and not of its command, so that a process that takes its place has
    /// the same and a stranger has not.
    pub is_group: bool,
    /// Whether it is a unit that the service manager of this host knows by that name.
    pub is_unit: bool,
}

/// Answers who the process with a pid is, for agents of this host.
pub trait Processes {
    /// The process that has `pid` now; `None` when there is none or it may not be seen.
    ///
    /// Asked on an agent's first beat, when a frame fits none of its sessions and when it beats after a silence: never
    /// for an ordinary beat.
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity>;
}

/// A local process as [`Request`]s name it, and answers to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Its process id.
    pub pid: u32,
    /// When it started, in the kernel's ticks since boot.
    pub start_time: NonZeroU64,
}
