//! The Varta server: takes heartbeats from processes, says which of them went silent and why, and exports
//! Prometheus metrics.
//!
//! Data flows one way: a [`listener`] reads a socket and hands on decoded beats, the engine gives them to the
//! pure [`tracker`], and the [`services`] get its [`Transition`](tracker::Transition)s. This library is what
//! the program `varta-server` runs, and what a test starts inside its own process:
//!
//! ```no_run
//! use varta_server::{Server, config::Config};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), varta_server::Error> {
//!     let server = Server::bind(Config::for_socket("/tmp/varta.sock".into()))?;
//!     server.run(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await
//! }
//! ```

mod base;
pub mod config;
mod domain;
mod engine;
mod ingest;
mod metrics;
mod observe;
mod server;
pub mod services;

pub use self::base::children::reap_adopted_children;
pub use self::base::error::Error;
pub use self::base::given_sockets::GivenSockets;
pub use self::base::inherited::reset_inherited;
pub use self::base::secret::Secret;
pub use self::base::version::{COMMIT, VERSION, VERSION_AND_COMMIT};
pub use self::base::{clock, logging, time};
pub use self::domain::{beat, job, labels, outcome, report, tracker};
pub use self::metrics::agent_rows::AgentMetrics;
pub use self::server::{BoundServer, Program, Server};
pub use self::services::alerts::{
    AlertOptions, AlertUrl, Login, MailAddress, MailOptions, Relay, Template, TemplateName, WebhookSignature,
};
pub use self::services::context::{ReloadReport, ReloadedFile, Reloader};
pub use self::services::{audit, events, heartbeat, recording, recovery};

/// The command line, the environment and the file of `--config`, as clap reads them.
pub mod cli {
    pub use crate::base::logging::LogFormat;
    pub use crate::base::options::host_port::HostPort;
    pub use crate::base::options::look_ups::LookUps;
    pub use crate::base::options::size::Size;
    pub use crate::base::options::values::{Address, Id, Mode};
    pub use crate::config::args::{Args, exec_alone};
    pub use crate::config::commands::run;
    pub use crate::config::environment::unknown_variables;
    pub use crate::config::{CheckArgs, CompleteArgs, ConfigTask, ShowArgs, Task};
    pub use crate::engine::{Detector, DetectorArgs, EngineArgs};
    pub use crate::ingest::IngestArgs;
    pub use crate::services::alerts::{AlertArgs, UrlText};
    pub use crate::services::audit::{AuditArgs, AuditTask, VerifyArgs};
    pub use crate::services::beat::{BeatArgs, BeatTask};
    pub use crate::services::doctor::{DoctorArgs, DoctorTask};
    pub use crate::services::events::EventsArgs;
    pub use crate::services::exec::{BeatSource, ExecArgs, ExecTask, RestartPolicy};
    pub use crate::services::follow::{ChangesArgs, FollowTask, State, WatchArgs};
    pub use crate::services::heartbeat::HeartbeatArgs;
    pub use crate::services::http::HttpArgs;
    pub use crate::services::maintenance::{
        ControlArgs, MaintenanceArgs, MaintenanceTask, PauseArgs, PausesArgs, ReloadArgs, ResumeArgs,
        UpgradeArgs,
    };
    pub use crate::services::recording::{RecordingArgs, RecordingTask, ReplayArgs};
    pub use crate::services::recovery::{RecoveryArgs, Variable};
    pub use crate::services::schedule::{ScheduleArgs, ScheduleTask};
    pub use crate::services::state::StateArgs;
    pub use crate::services::top::{TopArgs, TopTask};
    pub use crate::services::{Sections, Task as ServiceTask};
}

/// When something recurring is due.
pub mod schedule {
    pub use crate::base::time_zone::{TimeZone, UnknownTimeZone};
    pub use crate::domain::schedule::{Schedule, ScheduleError, ScheduleKind};
}

/// What can be configured of the sockets.
pub mod listener {
    pub use crate::base::SocketOptions;
    pub use crate::ingest::{AllowedSenders, KeyFiles};
}

/// What is known of processes.
pub mod process {
    pub use crate::domain::process::{
        AwaitedChild, BlockedThread, Cgroup, ContextSwitches, Descriptors, Details, Dossier, ExitStatus,
        Explanation, InspectionDepth, MAX_DESCRIPTORS, MAX_THREADS, Pressure, ProcessActivity, ProcessPlace,
        ProcessSnapshot, Share, SnapshotDelta, Stall, State, StateCounts, Throttled, classify,
    };
    pub use crate::observe::{ProcReader, ProcessName, namespace_pids};
}
