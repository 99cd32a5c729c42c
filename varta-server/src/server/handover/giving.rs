//! The old server's side of a hand-over.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::descriptor_link::{DescriptorLink, listening_sockets};
use crate::base::error::Error;
use crate::base::files::state_dir::StateDir;
use crate::base::given_sockets::GivenSockets;
use crate::engine::handover::{Estate, Export, GiveAway, HANDOVER_VERSION, HandoverRequest, WorkInHand};
use crate::engine::query::Query;
use crate::ingest::Keyring;
use crate::ingest::gate::Gate;
use crate::ingest::probes::Probes;
use crate::metrics::counters;
use crate::server::handover::message::{
    FAILED, PREPARED, PREPARED_WITHIN, PassedSocket, RELEASED, RUNNING, STATE, STEP_WITHIN, State, TAKEN,
    WELCOME, Welcome, YOURS, blocking, expect, fault,
};
use crate::server::handover::program::Program;
use crate::services::context::Context;
use crate::services::maintenance::upgrade_answer;
use crate::services::systemd::service::name_successor;

/// How answers and log lines name the other server.
const OTHER: &str = "the new server";
/// The longest wait for the commands of recovery that run.
const WORK_WITHIN: Duration = Duration::from_secs(10);
/// The longest wait for all readers to pause.
const PAUSED_WITHIN: Duration = Duration::from_secs(5);

/// Hands over to another server, when one asks, or when a user wants it.
#[derive(Debug)]
pub(in crate::server) struct Giver {
    clock: Clock,
    queries: mpsc::Sender<Query>,
    handle: PrometheusHandle,
    given: GivenSockets,
    state_dir: Option<StateDir>,
    sockets: Probes,
    keyring: Keyring,
    gate: Gate,
    work: WorkInHand,
    program: Option<Program>,
    is_handed_over: CancellationToken,
    outcome: Outcome,
}

/// The server that has taken over, once there is one.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Outcome(Arc<Mutex<Option<HandedOver>>>);

impl Outcome {
    pub(in crate::server) fn take(&self) -> Option<HandedOver> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, handed_over: HandedOver) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(handed_over);
    }
}

/// The server that has taken over.
#[derive(Debug)]
pub(in crate::server) struct HandedOver {
    link: Arc<DescriptorLink>,
    pid: u32,
    /// The user who wanted it.
    asker: Option<Arc<UnixStream>>,
}

impl Giver {
    pub(in crate::server) fn new(
        context: &Context,
        sockets: &Probes,
        keyring: &Keyring,
        gate: Gate,
        program: Option<Program>,
    ) -> Self {
        Giver {
            clock: context.clock,
            queries: context.queries.clone(),
            handle: context.registry.handle(),
            given: context.given.clone(),
            state_dir: context.state_dir.clone(),
            sockets: sockets.clone(),
            keyring: keyring.clone(),
            gate,
            work: context.work.clone(),
            program,
            is_handed_over: context.is_handed_over.clone(),
            outcome: Outcome::default(),
        }
    }

    pub(in crate::server) fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// Serves requests until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// None.
    pub(in crate::server) async fn run(
        self,
        mut requests: mpsc::Receiver<HandoverRequest>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let serve = async {
            while let Some(request) = requests.recv().await {
                match request {
                    HandoverRequest::TakeOver { stream, version } => self.serve(stream, version).await,
                    HandoverRequest::Upgrade { stream, uid } => {
                        self.upgrade(stream, uid, &mut requests).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = serve => {}
        }
        Ok(())
    }

    /// Starts another server, and answers the user when that has failed. Otherwise the answer comes at the end.
    async fn upgrade(&self, asker: UnixStream, uid: u32, requests: &mut mpsc::Receiver<HandoverRequest>) {
        tracing::info!(target: "varta::server", upgrade_asked_by = uid, "uid {uid} asks for an upgrade");
        let asker = Arc::new(asker);
        if let Err(why) = self.try_upgrade(&asker, requests).await {
            tracing::error!(target: "varta::server", "there is no upgrade, and this server goes on: {why}");
            answer(&asker, Err(format!("the server goes on as before: {why}")));
        }
    }

    async fn try_upgrade(
        &self,
        asker: &Arc<UnixStream>,
        requests: &mut mpsc::Receiver<HandoverRequest>,
    ) -> Result<(), String> {
        if nix::unistd::getpid().as_raw() == 1 {
            return Err(
                "it is process 1, with which all other processes would end; replace the container".to_owned()
            );
        }
        let Some(program) = &self.program else { return Err("it does not know its own program".to_owned()) };
        let path = program.path().display();
        let started = program.start().map_err(|error| format!("{path}: cannot be started: {error}"))?;
        let (pid, kill) = (started.pid(), started.killer());
        tracing::info!(target: "varta::server", pid, "{path} is started with pid {pid}, to take over");
        let mut ended = started.end().map_err(fault)?;
        let within = timeout(PREPARED_WITHIN, async {
            loop {
                tokio::select! {
                    biased;
                    how = &mut ended => return Err(how.unwrap_or_else(|_| "it has ended".to_owned())),
                    Some(request) = requests.recv() => match request {
                        HandoverRequest::TakeOver { stream, version } => {
                            match self.try_serve(stream, version, Some((pid, Arc::clone(asker)))).await {
                                // It was another server.
                                Ok(false) => {}
                                result => return result.map(drop),
                            }
                        }
                        HandoverRequest::Upgrade { stream, .. } => {
                            answer(&stream, Err("another upgrade is under way".to_owned()));
                        }
                    },
                }
            }
        });
        let result =
            within.await.unwrap_or_else(|_| Err(format!("it is not ready within {PREPARED_WITHIN:?}")));
        if result.is_err() {
            kill();
        }
        result.map_err(|why| format!("{path}: {why}"))
    }

    /// Serves a server that was started by a user.
    async fn serve(&self, stream: UnixStream, version: u32) {
        if let Err(why) = self.try_serve(stream, version, None).await {
            tracing::error!(target: "varta::server", "no other server takes over, and this one goes on: {why}");
        }
    }

    /// Hands over to the server at the other end. `Ok(false)` when that is not the child that was started for it.
    async fn try_serve(
        &self,
        stream: UnixStream,
        version: u32,
        child: Option<(u32, Arc<UnixStream>)>,
    ) -> Result<bool, String> {
        let link = Arc::new(DescriptorLink::new(stream, STEP_WITHIN).map_err(fault)?);
        let (pid, _) = link.peer().map_err(fault)?;
        if child.as_ref().is_some_and(|(child, _)| *child != pid) {
            let _ = link.send(FAILED, b"an upgrade is under way", &[]);
            return Ok(false);
        }
        let asker = child.map(|(_, asker)| asker);
        let result = self.hand_over(HandedOver { link: Arc::clone(&link), pid, asker }, version).await;
        if let Err(why) = &result {
            let said = why.clone();
            // It may have gone, or have said that itself.
            let _ = blocking(&link, move |link| link.send(FAILED, said.as_bytes(), &[]).map_err(fault)).await;
        }
        result.map(|()| true)
    }

    async fn hand_over(&self, to: HandedOver, version: u32) -> Result<(), String> {
        if version != HANDOVER_VERSION {
            return Err(format!(
                "it takes over in form {version}, and this server hands over in form {HANDOVER_VERSION}; stop this \
                 server and start the other"
            ));
        }
        let (welcome, descriptors) = self.welcome(to.asker.is_some())?;
        blocking(&to.link, move |link| {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            link.send(WELCOME, &welcome, &descriptors).map_err(fault)?;
            link.wait_at_most(PREPARED_WITHIN).map_err(fault)?;
            expect(link, PREPARED, OTHER)?;
            link.wait_at_most(STEP_WITHIN).map_err(fault)
        })
        .await?;
        if timeout(WORK_WITHIN, self.work.hold()).await.is_err() {
            self.work.release();
            return Err(format!(
                "commands of recovery still run after {WORK_WITHIN:?}; try again when they have ended"
            ));
        }
        let result = self.stand_still(to).await;
        if result.is_err() {
            self.work.release();
        }
        result
    }

    /// Hands over while nobody reads.
    async fn stand_still(&self, to: HandedOver) -> Result<(), String> {
        let stopped_at = self.clock.host_nanos(self.clock.now());
        let Ok(nobody_reads) = timeout(PAUSED_WITHIN, self.gate.close()).await else {
            self.gate.open();
            return Err(format!("the sockets are still read after {PAUSED_WITHIN:?}"));
        };
        let result = self.give_away(to, stopped_at).await;
        if result.is_err() {
            drop(nobody_reads);
            self.gate.open();
        }
        result
    }

    /// Gives all that this server knows, while nobody reads. The other server reads when it has taken it.
    async fn give_away(&self, to: HandedOver, stopped_at: u64) -> Result<(), String> {
        let (done, result) = oneshot::channel();
        let (keyring, handle) = (self.keyring.clone(), self.handle.clone());
        let (outcome, files, is_handed_over) =
            (self.outcome.clone(), self.given.files().clone(), self.is_handed_over.clone());
        let give = move |export: &Export<'_>| {
            let state = export.encode().map(|engine| State {
                fingerprints: keyring.fingerprints(),
                engine,
                windows: keyring.windows(),
                counters: counters::parse(&handle.render()),
                stopped_at,
            });
            let given = state.and_then(|state| {
                let state = postcard::to_allocvec(&state).map_err(|error| error.to_string())?;
                to.link.send(STATE, &state, &export.pidfds).map_err(fault)?;
                expect(&to.link, TAKEN, OTHER)?;
                to.link.send(YOURS, b"", &[]).map_err(fault)
            });
            let is_given = given.is_ok();
            if is_given {
                // Before the engine ends, which otherwise were a fault.
                files.keep(true);
                outcome.set(to);
                is_handed_over.cancel();
            }
            // The other end waits for it.
            let _ = done.send(given);
            is_given
        };
        let stopping = |_| "this server is stopping".to_owned();
        self.queries.send(Query::GiveAway(GiveAway(Box::new(give)))).await.map_err(|_| stopping(()))?;
        result.await.unwrap_or_else(|_| Err(stopping(())))
    }

    /// What is passed first: sockets, the lock of the state directory, and to a child standard error.
    fn welcome(&self, is_child: bool) -> Result<(Vec<u8>, Vec<OwnedFd>), String> {
        let mut sockets = Vec::new();
        let mut descriptors = Vec::new();
        let mut add = |option: &str, removes_file, queue, socket: OwnedFd| {
            sockets.push(PassedSocket { option: option.to_owned(), removes_file, queue });
            descriptors.push(socket);
        };
        for bound in self.given.files().held() {
            let Some(socket) = &bound.socket else { continue };
            let queue = bound.queue.get().copied();
            add("socket", bound.is_removed, queue, socket.try_clone().map_err(fault)?);
        }
        let mut without_file = Vec::new();
        self.sockets.each(|probe| without_file.push(probe.without_file()));
        for socket in without_file {
            if let Some((option, socket)) = socket.map_err(fault)? {
                add(option, false, None, socket);
            }
        }
        for socket in listening_sockets().map_err(fault)? {
            add("metrics-addr", false, None, socket);
        }
        let lock = self.state_dir.as_ref().map(StateDir::pass_lock).transpose().map_err(fault)?;
        let stderr = if is_child { io::stderr().as_fd().try_clone_to_owned().ok() } else { None };
        let welcome = Welcome {
            host_start: self.clock.host_start(),
            fingerprints: self.keyring.fingerprints(),
            sockets,
            has_lock: lock.is_some(),
            has_stderr: stderr.is_some(),
        };
        descriptors.extend(lock.map(OwnedFd::from));
        descriptors.extend(stderr);
        let welcome = serde_json::to_vec(&welcome).map_err(|error| error.to_string())?;
        Ok((welcome, descriptors))
    }
}

impl HandedOver {
    /// Lets go of the rest, after the services have ended with this result: the other server opens their files, and
    /// the service manager and whoever asked are told.
    ///
    /// # Errors
    ///
    /// The other server does not come up: nobody serves any more.
    pub(in crate::server) async fn finish(
        self,
        result: Result<(), Error>,
        estate: &Estate,
    ) -> Result<(), Error> {
        if let Err(error) = result {
            tracing::error!(target: "varta::server", "while the services stopped: {error}");
        }
        let HandedOver { link, pid, asker } = self;
        let left: BTreeMap<String, Vec<u8>> = estate.take_all();
        let runs = blocking(&link, move |link| {
            let left = postcard::to_allocvec(&left).map_err(|error| error.to_string())?;
            link.send(RELEASED, &left, &[]).map_err(fault)?;
            expect(link, RUNNING, OTHER).map(drop)
        });
        let runs = runs.await;
        let said = match &runs {
            Ok(()) => {
                name_successor(pid).await;
                tracing::info!(target: "varta::server", pid, "the server has pid {pid} from now on");
                Ok(format!("the server has pid {pid} from now on"))
            }
            Err(why) => Err(format!("the new server has taken over, and then failed: {why}; start a server")),
        };
        if let Some(asker) = &asker {
            answer(asker, said.clone());
        }
        said.map(drop).map_err(|fault| Error::TaskEnded { task: "hand-over", fault })
    }
}

/// Answers a user, who may have gone.
fn answer(asker: &UnixStream, result: Result<String, String>) {
    let line = upgrade_answer(result);
    let _ = asker.set_nonblocking(false);
    let _ = asker.set_write_timeout(Some(Duration::from_secs(2)));
    let mut asker = asker;
    let _ = asker.write_all(line.as_bytes());
}
