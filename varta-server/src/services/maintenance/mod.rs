//! Maintenance: what users ask of a running server about its agents. Agents are paused for a time: the server
//! watches and shows them as always, without alarms, as alerts and recovery ask `Pauses` first. Agents that are
//! no more are forgotten, and the audit log says who asked for that.
//!
//! Pauses have two sources. Planned ones are in the configuration file and are reloaded with it; the others
//! are requested on the control socket, and survive a restart in a file of `--state-dir`.

pub(crate) mod acks;
mod agent_commands;
mod client;
mod command;
mod control;
pub(crate) mod desk;
mod examination;
mod examine;
mod forget;
mod json_object;
pub(in crate::services) mod metrics;
mod name_search;
mod names;
mod options;
mod pause;
mod pause_file;
pub(crate) mod pauses;
mod persister;
mod protocol;
mod requests;
mod schedule;
mod server_commands;
pub(crate) mod service;
mod status;
mod status_command;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trail;
mod wall_timer;

pub use self::agent_commands::{AckArgs, ForgetArgs, UnackArgs};
pub(crate) use self::client::connect_to_server;
pub use self::command::{ControlArgs, MaintenanceTask, PauseArgs, PausesArgs, ResumeArgs};
pub(crate) use self::examine::{Examination, Told, examine};
#[cfg(test)]
pub(crate) use self::examine::{Lossy, Seldom};
pub(crate) use self::names::NamesOf;
pub use self::options::{
    ControlSocket, MaintenanceArgs, MaintenanceOptions, PlannedPause, PlannedPauses, Reason,
};
pub(crate) use self::pause::parse_pattern;
pub(crate) use self::protocol::{take_over_request, upgrade_answer};
pub use self::server_commands::{ReloadArgs, UpgradeArgs};
pub use self::status_command::StatusArgs;
