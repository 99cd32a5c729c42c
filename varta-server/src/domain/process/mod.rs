//! Processes as values: state, pressure, identity and exit. [`observe`](crate::observe) reads them from the
//! kernel.

mod cgroup;
mod classify;
mod dossier;
mod exit;
pub(crate) mod identity;
mod pressure;
mod snapshot;
mod state;
pub(crate) mod text;

pub use self::cgroup::{Cgroup, Throttled};
pub use self::classify::{Doing, Explanation, explain};
pub use self::dossier::Dossier;
pub use self::exit::Death;
pub(crate) use self::exit::signal_name;
pub(crate) use self::identity::ProcessId;
pub use self::pressure::{Pressure, Share, Stall};
pub use self::snapshot::{
    Change, Descriptors, Details, InspectionDepth, Look, MAX_DESCRIPTORS, MAX_THREADS, Stuck, Switches,
};
pub use self::state::{State, States};
