//! What the tracker wants from the world outside: it asks, and goes on without waiting.

use crate::domain::process::ProcessId;

/// Something to be done outside, in the order in which it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Tell when this process ends, through [`Tracker::handle_death`](crate::domain::tracker::Tracker::handle_death).
    Watch(ProcessId),
    /// That is not needed any more.
    Unwatch(ProcessId),
    /// Nothing could be learned of the process that beat under this pid. Tell if there is none, through
    /// [`Tracker::handle_absence`](crate::domain::tracker::Tracker::handle_absence).
    Find(u32),
    /// Look at this process. What comes of a close look is handed in through
    /// [`Tracker::handle_evidence`](crate::domain::tracker::Tracker::handle_evidence); a glance is only there to be compared with it.
    Look {
        /// Which one.
        process: ProcessId,
        /// How closely.
        depth: Depth,
    },
}

/// How closely to look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What costs next to nothing.
    Glance,
    /// All that can be seen.
    Close,
}
