//! The registration of all capabilities: one folder each, one line here in each list.
//!
//! A capability is added by its folder, its line in the list of modules, and one line each in [`Sections`],
//! [`Options`], `Services` and their functions, which take those structs apart by name: a line that is
//! missing does not compile, or leaves dead code of which the compiler warns. A subcommand has a line in
//! [`Task`] too, tables of the file have theirs in [`Tables`], and what is read again on SIGHUP has one in
//! `Reload`.

pub(crate) mod alarms;
pub mod alerts;
pub(crate) mod api;
pub mod audit;
pub mod beat;
pub(crate) mod context;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod follow;
pub mod heartbeat;
pub mod http;
pub(crate) mod log;
pub mod maintenance;
pub(crate) mod page;
pub mod recording;
pub mod recovery;
pub mod schedule;
pub mod state;
pub(crate) mod systemd;
mod tasks;
pub mod top;
#[cfg(test)]
pub mod worked_example;

use std::future::Future;

use clap::Args;
use tokio::sync::mpsc;

use self::alerts::{AlertArgs, AlertOptions, service::Alerts};
use self::audit::{AuditArgs, AuditOptions, service::Audit};
use self::context::Context;
use self::events::{EventsArgs, EventsOptions, service::Events};
use self::heartbeat::{HeartbeatArgs, HeartbeatOptions, service::Heartbeat};
use self::http::{HttpArgs, HttpOptions, service::Http};
use self::maintenance::{MaintenanceArgs, PlannedPauses};
use self::recording::{RecordOptions, RecordingArgs, service::Recording};
use self::recovery::{RecoveryArgs, RecoveryOptions, RecoveryTables, service::Recovery};
use self::state::{StateArgs, StateOptions, service::State};
use self::systemd::service::{ReloadNotice, Systemd};
use crate::base::SocketOptions;
use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::options::table::{ParseErrors, ReadTables, TableDefinition, TomlKey, Value};
use crate::base::options::{LookUps, OptionFaults, names};
use crate::domain::tracker::{Policy, Tracker};
use crate::engine::Recorder;
use crate::engine::state_queue::StateSink;
use crate::ingest::Keyring;
use crate::ingest::kernel_drops::KernelDrops;
use crate::metrics::family::Family;

pub use self::tasks::Task;

/// The families of the example of CONTRIBUTING.md, for the tests of all families. No server exports them.
#[cfg(test)]
pub(crate) use self::worked_example::metrics::FAMILIES as EXAMPLE_FAMILIES;

/// The families of the server's own process.
#[cfg(test)]
pub(crate) use self::http::process::FAMILIES as PROCESS_FAMILIES;

/// The families of metrics of each capability.
pub(crate) const fn families() -> &'static [&'static [Family]] {
    &[
        state::metrics::FAMILIES,
        maintenance::metrics::FAMILIES,
        audit::metrics::FAMILIES,
        alerts::metrics::FAMILIES,
        heartbeat::metrics::FAMILIES,
        recovery::metrics::FAMILIES,
        events::metrics::FAMILIES,
        recording::metrics::FAMILIES,
        http::metrics::FAMILIES,
        http::tls::FAMILIES,
        http::credentials::FAMILIES,
        http::readers::FAMILIES,
        log::metrics::FAMILIES,
        http::process::FAMILIES,
        systemd::metrics::FAMILIES,
    ]
}

/// The options of all capabilities, in the order in which help lists them.
#[derive(Clone, Debug, Args)]
pub struct Sections {
    /// Where metrics are served.
    #[command(flatten, next_help_heading = "Metrics")]
    pub http: HttpArgs,
    /// Where the state is kept.
    #[command(flatten, next_help_heading = "State")]
    pub state: StateArgs,
    /// Where pauses are asked for.
    #[command(flatten, next_help_heading = "Maintenance")]
    pub maintenance: MaintenanceArgs,
    /// What is recorded.
    #[command(flatten, next_help_heading = "Recording")]
    pub recording: RecordingArgs,
    /// What is done about agents that are stalled or down.
    #[command(flatten, next_help_heading = "Recovery")]
    pub recovery: RecoveryArgs,
    /// Where changes of verdict are written.
    #[command(flatten, next_help_heading = "Events")]
    pub events: EventsArgs,
    /// Where recoveries are recorded.
    #[command(flatten, next_help_heading = "Audit log")]
    pub audit: AuditArgs,
    /// The receivers of alerts.
    #[command(flatten, next_help_heading = "Alerts")]
    pub alerts: AlertArgs,
    /// Who watches this server.
    #[command(flatten, next_help_heading = "Heartbeat of the server")]
    pub heartbeat: HeartbeatArgs,
}

/// The tables of the file that capabilities have.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The pauses that are planned.
    pub maintenance: PlannedPauses,
    /// What is done about agents in bad states.
    pub recovery: RecoveryTables,
}

impl Tables {
    /// What they are.
    pub(crate) fn definitions() -> [TableDefinition; 2] {
        [PlannedPauses::definition(), RecoveryTables::definition()]
    }

    /// Reads the value of a key, if the key names one of these tables. Whether it does.
    pub(crate) fn read(&mut self, key: &TomlKey<'_>, value: &Value<'_>, faults: &mut ParseErrors) -> bool {
        self.maintenance.read(key, value, faults) || self.recovery.read(key, value, faults)
    }
}

/// What all capabilities are to do. By default nothing is on.
#[derive(Debug, Default)]
pub struct Options {
    /// Where metrics are served.
    pub http: HttpOptions,
    /// Where what is known of agents is kept for the next server.
    pub state: StateOptions,
    /// By which ways agents can be paused.
    pub maintenance: maintenance::MaintenanceOptions,
    /// What is recorded of what arrives; `None` for nothing.
    pub recording: Option<RecordOptions>,
    /// What is done about agents in bad states.
    pub recovery: RecoveryOptions,
    /// Where changes of verdict are written; `None` for nowhere but the log.
    pub events: Option<EventsOptions>,
    /// Where recoveries are recorded; `None` for nowhere.
    pub audit: Option<AuditOptions>,
    /// The receivers of alerts.
    pub alerts: AlertOptions,
    /// Who is told that this server works.
    pub heartbeat: HeartbeatOptions,
}

impl Sections {
    /// What the options say, checked, with the tables of the file if there is one. `sockets` are the Unix sockets
    /// on which agents beat.
    pub(crate) fn options(
        self,
        tables: Option<&Tables>,
        sockets: &[SocketOptions],
        look_ups: LookUps,
        faults: &mut OptionFaults,
    ) -> Options {
        let Sections { http, state, maintenance, recording, recovery, events, audit, alerts, heartbeat } =
            self;
        let pauses = tables.map(|tables| tables.maintenance.clone()).unwrap_or_default();
        let maintenance = maintenance.options(pauses, sockets);
        let audit = faults.checked(audit.options(), if_on(AuditOptions::check));
        let recovery = recovery.options(tables.map(|tables| &tables.recovery), audit.as_ref(), look_ups);
        Options {
            http: faults.checked(http.options(look_ups), HttpOptions::check),
            state: state.options(),
            maintenance: faults.checked(Ok(maintenance), |maintenance| maintenance.check(sockets)),
            recording: faults.checked(recording.options(), if_on(RecordOptions::check)),
            recovery: faults.checked(recovery, |recovery| recovery.check(audit.as_ref(), look_ups)),
            events: faults.checked(events.options(), if_on(EventsOptions::check)),
            audit,
            alerts: faults.checked(alerts.options(tables.is_some(), look_ups), AlertOptions::check),
            heartbeat: faults.checked(heartbeat.options(sockets), |heartbeat| heartbeat.check(sockets)),
        }
    }
}

impl Options {
    /// Checks what the types leave open. `sockets` are those on which agents beat.
    ///
    /// # Errors
    ///
    /// The options whose values make no sense, by their names on the command line.
    pub(crate) fn check(&self, sockets: &[SocketOptions]) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        let Options { http, state: _, maintenance, recording, recovery, events, audit, alerts, heartbeat } =
            self;
        faults.value(http.check());
        faults.value(maintenance.check(sockets));
        faults.value(if_on(RecordOptions::check)(recording));
        faults.value(recovery.check(audit.as_ref(), LookUps::Done));
        faults.value(if_on(EventsOptions::check)(events));
        faults.value(if_on(AuditOptions::check)(audit));
        faults.value(alerts.check());
        faults.value(heartbeat.check(sockets));
        faults.into_result()
    }
}

impl Options {
    /// Checks what they rely on at this host.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        let Options { http, state, maintenance, recording, recovery, events, audit, alerts, heartbeat } =
            self;
        http.check_host(host);
        state.check_host(host);
        maintenance.check_host(host);
        recovery.check_host(host);
        alerts.check_host(host);
        heartbeat.check_host(host);
        host.section(recording, RecordOptions::check_host);
        host.section(events, EventsOptions::check_host);
        host.section(audit, AuditOptions::check_host);
    }
}

/// The check of a capability that may be off.
fn if_on<T>(check: impl FnOnce(&T) -> Result<(), Error>) -> impl FnOnce(&Option<T>) -> Result<(), Error> {
    |options| options.as_ref().map_or(Ok(()), check)
}

/// All capabilities with their files and sockets, before any of them runs.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) http: Http,
    state: State,
    maintenance: maintenance::service::Maintenance,
    recording: Recording,
    recovery: Recovery,
    events: Events,
    audit: Audit,
    alerts: Alerts,
    heartbeat: Heartbeat,
    systemd: Systemd,
}

impl Services {
    /// Opens them in the order in which one needs another. What cannot be used is refused here, before any
    /// thread runs.
    ///
    /// `bind_sockets` takes the sockets on which agents beat. It has a place in that order: a second server
    /// is refused by the state that it shares with the first, else by these sockets, and only then by the
    /// control socket.
    ///
    /// # Errors
    ///
    /// What cannot be opened. Nothing is left behind.
    pub(crate) fn open<S>(
        options: Options,
        context: &Context,
        policy: &Policy,
        keyring: &Keyring,
        bind_sockets: impl FnOnce() -> Result<S, Error>,
    ) -> Result<(Self, S), Error> {
        // The context has the directory of the state.
        let Options { http, state: _, maintenance, recording, recovery, events, audit, alerts, heartbeat } =
            options;
        let state = State::open(context, policy.max_agents, keyring)?;
        let alerts = Alerts::open(alerts, context)?;
        let sockets = bind_sockets()?;
        let maintenance = maintenance::service::Maintenance::open(&maintenance, context)?;
        let http = Http::open(http, context)?;
        let events = Events::open(events)?;
        let audit = Audit::open(audit.as_ref(), context)?;
        let recovery = Recovery::open(recovery, context)?;
        let heartbeat = Heartbeat::open(heartbeat, &context.host)?;
        // Last: a server that could not start leaves no file behind that keeps the next from starting.
        let recording = Recording::open(recording, policy.stall_after)?;
        let systemd = Systemd::open(context);
        let services = Services {
            http,
            state,
            maintenance,
            recording,
            recovery,
            events,
            audit,
            alerts,
            heartbeat,
            systemd,
        };
        Ok((services, sockets))
    }

    /// The way to have them read the file again while they run.
    pub(crate) fn reload(&self) -> Reload {
        Reload {
            maintenance: self.maintenance.reload(),
            recovery: self.recovery.reload(self.audit.is_asked()),
            alerts: self.alerts.reload(),
            http: self.http.reload(),
            notice: self.systemd.reload(),
        }
    }

    /// Starts all of them, and returns what the tracker's task needs of them.
    ///
    /// # Errors
    ///
    /// What cannot be started.
    pub(crate) fn start(
        self,
        context: &mut Context,
        tracker: &mut Tracker,
        kernel_drops: KernelDrops,
    ) -> Result<ForTracker, Error> {
        let Services {
            http,
            state,
            mut maintenance,
            recording,
            recovery,
            events,
            audit,
            alerts,
            heartbeat,
            systemd,
        } = self;
        let pauses = maintenance.pauses().clone();
        log::service::start(context);
        let alarms = alarms::service::start(context);
        let history = state.history();
        let state = state.start(context, tracker)?;
        let recorder = recording.start(context)?;
        let (notifier, board) = alerts.start(context, &pauses, maintenance.take_ack_requests());
        let audit_writer = audit.start(context)?;
        let journal = recovery.start(context, audit_writer.clone(), notifier, &pauses)?;
        events.start(context)?;
        let (to_http, local) = mpsc::channel(http::LOCAL_CONNECTIONS);
        let desk = maintenance.start(context, audit_writer, alarms.clone(), kernel_drops.clone(), to_http);
        let sources = api::Sources { alarms, desk, board, journal, history };
        let mut sites = api::service::start(context, sources);
        sites.open = sites.open.merge(page::routes());
        http.start(context, kernel_drops, sites, local)?;
        heartbeat.start(context);
        systemd.start(context);
        Ok(ForTracker { state, recorder })
    }
}

/// What the tracker's task needs of the capabilities besides their subscriptions.
pub(crate) struct ForTracker {
    pub(crate) state: Option<StateSink>,
    pub(crate) recorder: Recorder,
}

/// The capabilities that read something again on SIGHUP. All of it is staged before any of it is committed.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    maintenance: maintenance::service::Reload,
    recovery: recovery::service::Reload,
    alerts: alerts::service::Reload,
    http: http::reload::Reload,
    /// Tells the service manager of it.
    pub(crate) notice: ReloadNotice,
}

/// What was read and does not count yet.
#[derive(Debug)]
pub(crate) struct Staged {
    maintenance: maintenance::service::Staged,
    recovery: recovery::service::Staged,
    alerts: alerts::service::Staged,
    http: http::reload::Staged,
}

impl Reload {
    /// The options that running capabilities take over.
    pub(crate) fn options() -> impl Iterator<Item = String> {
        [names::<HttpArgs>(), names::<AlertArgs>(), names::<RecoveryArgs>()].into_iter().flatten()
    }

    /// Prepares what the options and tables say now, which have been checked. Nothing changes by it.
    ///
    /// # Errors
    ///
    /// What does not go together with what cannot change while the server runs.
    pub(crate) fn stage(&self, options: Options) -> Result<Staged, Error> {
        let Options { http, maintenance, recovery, audit, alerts, .. } = options;
        Ok(Staged {
            maintenance: self.maintenance.stage(maintenance.planned),
            recovery: self.recovery.stage(recovery, audit.is_some())?,
            alerts: self.alerts.stage(alerts)?,
            http: self.http.stage(http)?,
        })
    }
}

impl Staged {
    /// Has it count from now on: pauses first, then what `engine` gives the tracker, and recovery last, which
    /// acts on the tracker's verdicts. Gives what `engine` does; `None` when the server is about to end.
    pub(crate) async fn commit<T>(self, engine: impl Future<Output = Option<T>>) -> Option<T> {
        let Staged { maintenance, recovery, alerts, http } = self;
        maintenance.commit();
        http.commit();
        let given = engine.await?;
        alerts.commit().await?;
        recovery.commit().await?;
        Some(given)
    }
}
