use std::time::Duration;

use crate::domain::process::pressure::Pressure;

/// What is known of the cgroup of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path, cut after 256 bytes.
    pub path: Box<str>,
    /// Whether everything in it is frozen.
    pub frozen: Option<bool>,
    /// How often and for how long it was held back for having used up its share of CPU, since it was made.
    pub throttled: Option<Throttled>,
    /// How short it is of what it needs.
    pub pressure: Pressure,
}

/// How much a cgroup was held back by its CPU limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// In so many periods.
    pub periods: u64,
    /// For so long in all.
    pub time: Duration,
}
