//! The progress of the two background passes: sweeps over all agents, and checkpoints of the replay table.

use std::time::Duration;

use crate::base::time::MonoTime;

/// The slot from which the next replay windows are saved, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Save {
    pub(super) from: usize,
    pub(super) at: MonoTime,
}

/// The pause between two sweeps.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The pause between two slices, so that a sweep of a million agents neither delays beats nor fills the
/// disk's queue.
pub(super) const SLICE_PAUSE: Duration = Duration::from_millis(100);

/// The progress of the present sweep.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The number of the present or last sweep, which marks the rows it has written.
    pub(super) number: i64,
    /// Whether every slice so far has been written.
    pub(super) is_whole: bool,
    pub(super) next: Next,
}

/// The next step of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Begins a sweep. `NEVER` while there are no agents.
    Begin { at: MonoTime },
    /// Requests the slice from this slot on.
    Ask { from: usize, at: MonoTime },
    /// Awaits a requested slice.
    Wait,
}
