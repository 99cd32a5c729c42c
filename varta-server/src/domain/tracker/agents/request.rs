//! Requests of the tracker to the outside. The tracker goes on without waiting for the reply.

use std::num::NonZeroU32;

use crate::domain::process::{InspectionDepth, ProcessId};

/// An action that the tracker requests from the outside. Requests are served in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackerRequest {
    /// Report the end of this process, through
    /// [`Tracker::handle_exit`](crate::domain::tracker::Tracker::handle_exit).
    Watch(ProcessId),
    /// Stop watching the process with this pid.
    Unwatch(u32),
    /// Report the end of the process with this pid, which could not be identified, or that there is none,
    /// through [`Tracker::handle_absence`](crate::domain::tracker::Tracker::handle_absence).
    Find(u32),
    /// Inspect this process. The result of a full inspection comes in through
    /// [`Tracker::handle_evidence`](crate::domain::tracker::Tracker::handle_evidence); a quick sample is only
    /// compared with it.
    Look {
        /// The process.
        process: ProcessId,
        /// The child of it to inspect in its place, by the pid that the child has for its parent, if there is such a
        /// child.
        child: Option<NonZeroU32>,
        /// The depth of the inspection.
        depth: InspectionDepth,
    },
}
