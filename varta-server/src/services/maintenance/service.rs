//! Opens the control socket and the file of pauses, and starts what serves them.

use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::base::clock::wall_now;
use crate::base::error::Error;
use crate::ingest::kernel_drops::KernelDrops;
use crate::ingest::socket_place::PlaceKeeper;
use crate::metrics::faults::Part;
use crate::services::alarms::Alarms;
use crate::services::audit::AuditWriter;
use crate::services::context::Context;
use crate::services::maintenance::acks::{self, AckRequest};
use crate::services::maintenance::control::ControlListener;
use crate::services::maintenance::desk::Desk;
use crate::services::maintenance::examination::ServerFacts;
use crate::services::maintenance::forget::ForgetService;
use crate::services::maintenance::metrics::MaintenanceMetrics;
use crate::services::maintenance::options::{self, PlannedPauses};
use crate::services::maintenance::pause_file::{self, PauseFile};
use crate::services::maintenance::pauses::Pauses;
use crate::services::maintenance::requests::{PauseService, ServerDesk};
use crate::services::maintenance::status::StatusDesk;
use crate::services::maintenance::trail::Trail;

/// The name of what is left to the next server.
const ESTATE: &str = "pauses";

/// The maintenance service before it runs. A drop removes its socket.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pauses: Pauses,
    file: Option<PauseFile>,
    pub(super) control: Option<ControlListener>,
    acks: mpsc::Sender<AckRequest>,
    /// Until the alert service takes it.
    ack_requests: Option<mpsc::Receiver<AckRequest>>,
}

impl Maintenance {
    /// Reads what the server before this one kept in the state directory, and takes the control socket.
    ///
    /// # Errors
    ///
    /// A newer server wrote the file, or the control socket cannot be bound. A default path that is too long
    /// is no error: it is logged, and the server runs without the socket.
    pub(crate) fn open(options: &options::MaintenanceOptions, context: &Context) -> Result<Self, Error> {
        let bind = |control| ControlListener::bind(control, &context.given);
        let control = match options.control.as_ref().map(bind).transpose() {
            Err(error @ Error::SocketPathTooLong { .. })
                if options.control.as_ref().is_some_and(|control| control.is_default) =>
            {
                tracing::warn!(target: "varta::maintenance", "there is no control socket: {error}");
                None
            }
            control => control?,
        };
        let pauses = Pauses::default();
        let file = context.state_dir.as_ref().map(|directory| PauseFile::new(directory.path()));
        let left = context.estate.take(ESTATE);
        let kept = match (&file, left) {
            (Some(file), _) => file.read()?,
            (None, Some(left)) => pause_file::from_bytes(&left).unwrap_or_else(|fault| {
                tracing::error!(
                    target: "varta::maintenance",
                    "the pauses of the server before this one are not in force: {fault}"
                );
                Vec::new()
            }),
            (None, None) => Vec::new(),
        };
        pauses.change(|list| {
            for pause in kept {
                // The file has no more pauses than the schedule may have.
                let _former = list.add(pause);
            }
        });
        pauses.plan(&options.planned, wall_now());
        let (acks, ack_requests) = mpsc::channel(acks::QUEUE);
        Ok(Maintenance { pauses, file, control, acks, ack_requests: Some(ack_requests) })
    }

    /// The handle of all pauses.
    pub(crate) fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    /// Takes the requests to acknowledge alarms, which the alert service serves.
    pub(crate) fn take_ack_requests(&mut self) -> Option<mpsc::Receiver<AckRequest>> {
        self.ack_requests.take()
    }

    /// The way to give it other planned pauses while it runs.
    pub(crate) fn reload(&self) -> Reload {
        Reload { pauses: self.pauses.clone() }
    }

    /// Starts the task that lets pauses begin and end, and does what is asked for on the control socket.
    /// `audit` is where what users ask for about agents is recorded, and `alarms` has those who are in alarm.
    /// Connections to it on which HTTP is spoken go to `http`. Gives what others ask by.
    pub(crate) fn start(
        self,
        context: &mut Context,
        audit: AuditWriter,
        alarms: Alarms,
        kernel_drops: KernelDrops,
        http: mpsc::Sender<UnixStream>,
    ) -> Desk {
        let metrics = MaintenanceMetrics::new(&context.registry);
        let keeper = context.place_keeper(Part::ControlSocket);
        let (stop, estate) = (context.stop.clone(), context.estate.clone());
        let status = StatusDesk {
            alarms,
            clock: context.clock,
            host: Arc::clone(&context.host),
            faults: context.faults.clone(),
            queries: context.queries.clone(),
            facts: ServerFacts {
                metrics: context.registry.handle(),
                kernel_drops,
                peers: context.peers.clone(),
                state_dir: context.state_dir.as_ref().map(|directory| directory.path().to_path_buf()),
            },
        };
        let (reloads, handovers) = (context.reloads.clone(), context.handovers.clone());
        let server = ServerDesk { reloads, handovers, status };
        let trail = Trail { audit, host: Arc::clone(&context.host) };
        let forget = ForgetService { queries: context.queries.clone(), trail };
        let (pauses, has_file) = (self.pauses.clone(), self.file.is_some());
        let Maintenance { file, control, acks, .. } = self;
        let desk = PauseService::new(pauses.clone(), file, metrics, forget, acks, server);
        let desk = Desk(Arc::new(desk));
        let task = run(Arc::clone(&desk.0), control, http, keeper, stop);
        context.spawn("maintenance", async move {
            task.await?;
            if !has_file {
                let asked: Vec<_> = pauses.look(|list| list.asked().cloned().collect());
                estate.leave(ESTATE, pause_file::to_bytes(&asked));
            }
            Ok(())
        });
        desk
    }
}

/// Runs until `stop` is cancelled.
///
/// # Errors
///
/// The kernel has no timer left, or the runtime cannot register the socket.
async fn run(
    desk: Arc<PauseService>,
    control: Option<ControlListener>,
    http: mpsc::Sender<UnixStream>,
    keeper: PlaceKeeper,
    stop: CancellationToken,
) -> Result<(), Error> {
    let serve = async {
        match control {
            Some(listener) => listener.serve(&desk, &http, &keeper, &stop).await,
            None => {
                stop.cancelled().await;
                Ok(())
            }
        }
    };
    let keep_file = async {
        desk.keep_file(&keeper.watcher, &stop).await;
        Ok(())
    };
    tokio::try_join!(desk.keep_time(&stop), serve, keep_file)?;
    Ok(())
}

/// What the file of `--config` plans, read while the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    pauses: Pauses,
}

/// Pauses that do not count yet.
#[derive(Debug)]
pub(crate) struct Staged {
    pauses: Pauses,
    planned: PlannedPauses,
}

impl Reload {
    /// Takes the pauses, which have been checked. Nothing changes by it.
    pub(crate) fn stage(&self, planned: PlannedPauses) -> Staged {
        Staged { pauses: self.pauses.clone(), planned }
    }
}

impl Staged {
    /// Has them count from now on.
    pub(crate) fn commit(self) {
        self.pauses.plan(&self.planned, wall_now());
    }
}
