//! Processes as values: state, pressure, identity and exit. [`observe`](crate::observe) reads them from the
//! kernel.

mod cgroup;
mod classify;
mod dossier;
mod exit;
pub(crate) mod identity;
mod place;
mod pressure;
mod snapshot;
mod state;
mod success_exit;
pub(crate) mod text;

pub use self::cgroup::{Cgroup, Throttled};
pub(crate) use self::classify::waits_for_child;
pub use self::classify::{Explanation, ProcessActivity, classify};
pub use self::dossier::Dossier;
pub use self::exit::ExitStatus;
pub(crate) use self::exit::signal_name;
pub(crate) use self::identity::{EndedProcess, Lineage, PidfdTag, ProcessId, ProcessStart};
pub use self::place::ProcessPlace;
pub use self::pressure::{Pressure, Share, Stall};
pub use self::snapshot::{
    AwaitedChild, BlockedThread, ContextSwitches, Descriptors, Details, InspectionDepth, MAX_DESCRIPTORS,
    MAX_THREADS, ProcessSnapshot, SnapshotDelta,
};
pub use self::state::{State, StateCounts};
pub use self::success_exit::{OrdinaryEnd, SuccessExit};
