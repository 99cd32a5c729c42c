//! The cgroup of a process: whether its silence has a cause there, such as a freeze or a CPU limit.

use std::time::Duration;

use crate::domain::process::pressure::Pressure;

/// The cgroup of a process, as far as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The path, cut to 256 bytes.
    pub path: Box<str>,
    /// Whether the cgroup, or one above it, is frozen or about to be.
    pub frozen: Option<bool>,
    /// The path of the outermost cgroup that is frozen, where it is another than the process's own, cut to 256
    /// bytes.
    pub frozen_at: Option<Box<str>>,
    /// How often and for how long its CPU limit has throttled the cgroup since its creation.
    pub throttled: Option<Throttled>,
    /// The pressure of the cgroup.
    pub pressure: Pressure,
}

/// How much its CPU limit throttled a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// The number of throttled periods.
    pub periods: u64,
    /// The total throttled time.
    pub time: Duration,
}
