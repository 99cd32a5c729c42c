//! Maintenance: agents that are paused for a time. The server watches and shows them as always, without
//! alarms: alerts and recovery ask `Pauses` first.
//!
//! Pauses have two sources. Planned ones are in the configuration file and are reloaded with it; the others
//! are requested on the control socket, and survive a restart in a file of `--state-dir`.

mod client;
mod command;
mod control;
mod json_object;
pub(in crate::services) mod metrics;
mod options;
mod pause;
mod pause_file;
pub(crate) mod pauses;
mod persister;
mod protocol;
mod requests;
mod schedule;
pub(crate) mod service;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wall_timer;

pub use self::command::{ControlArgs, MaintenanceTask, PauseArgs, PausesArgs, ResumeArgs};
pub use self::options::{
    ControlSocket, MaintenanceArgs, MaintenanceOptions, PlannedPause, PlannedPauses, Reason,
};
