//! The service behind the control socket: carries out requests, persists the schedule of pauses, and advances it
//! with time.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::base::Glob;
use crate::base::backoff::FIRST_DELAY;
use crate::base::clock::wall_now;
use crate::base::error::Error;
use crate::base::files::watch::FileWatcher;
use crate::base::time::WallTime;
use crate::domain::tracker::NameMatches;
use crate::engine::handover::HandoverRequest;
use crate::engine::query::Query;
use crate::services::context::Reloader;
use crate::services::maintenance::acks::{AckRequest, AckService};
use crate::services::maintenance::forget::ForgetService;
use crate::services::maintenance::metrics::MaintenanceMetrics;
use crate::services::maintenance::options::Reason;
use crate::services::maintenance::pause::{Pause, RequestedBy};
use crate::services::maintenance::pause_file::PauseFile;
use crate::services::maintenance::pauses::{Pauses, TARGET};
use crate::services::maintenance::persister::{Persister, WriteOutcome};
use crate::services::maintenance::protocol::{Matches, Request, Response, ResponseStatus};
use crate::services::maintenance::schedule::{ResumeResult, Schedule, ScheduleFull, Tick};
use crate::services::maintenance::status::StatusDesk;
use crate::services::maintenance::wall_timer::WallTimer;

/// The pauses with their file and metrics.
#[derive(Debug)]
pub(super) struct PauseService {
    pub(super) pauses: Pauses,
    keeper: Persister,
    metrics: MaintenanceMetrics,
    pub(super) queries: mpsc::Sender<Query>,
    forget: ForgetService,
    pub(super) acks: AckService,
    server: ServerDesk,
}

/// What is asked about the server as a whole.
#[derive(Debug)]
pub(super) struct ServerDesk {
    pub(super) reloads: Reloader,
    pub(super) handovers: mpsc::Sender<HandoverRequest>,
    pub(super) status: StatusDesk,
}

impl PauseService {
    pub(super) fn new(
        pauses: Pauses,
        file: Option<PauseFile>,
        metrics: MaintenanceMetrics,
        forget: ForgetService,
        requests: mpsc::Sender<AckRequest>,
        server: ServerDesk,
    ) -> Self {
        let keeper = Persister::new(pauses.clone(), file);
        let ForgetService { queries, trail } = &forget;
        let (queries, is_kept) = (queries.clone(), keeper.has_place());
        let acks = AckService { queries: queries.clone(), trail: trail.clone(), requests, is_kept };
        PauseService { pauses, keeper, metrics, queries, forget, acks, server }
    }

    /// The worst alarms, at most so many, and how many there are; `None` when the server stops.
    pub(super) async fn alarms(&self, most: usize) -> Option<(Vec<Value>, usize)> {
        self.server.status.alarms(most, &self.pauses, &self.acks).await
    }

    /// Carries out a request of `uid`.
    pub(super) async fn answer(&self, request: Request, uid: u32) -> Response {
        match request {
            Request::Pause { pattern, length, reason } => self.pause(pattern, length, reason, uid).await,
            Request::Resume { pattern } => self.resume(&pattern, uid).await,
            Request::Pauses => self.list(),
            Request::Status => match self.server.status.report(&self.pauses, &self.acks).await {
                Some(status) => Response { status: Some(status), ..self.done(None, Vec::new()) },
                None => Response::refused("the server ends"),
            },
            Request::Examine => match self.server.status.examine(&self.pauses, &self.acks).await {
                Some(status) => Response { status: Some(status), ..self.done(None, Vec::new()) },
                None => Response::refused("the server ends"),
            },
            Request::Forget { who, reason } => {
                let answer = self.forget.forget(who, reason, uid).await;
                Response { kept: self.keeper.has_place(), ..answer }
            }
            Request::Acknowledge { who, reason } => {
                let answer = self.acks.acknowledge(who, reason, uid).await;
                Response { kept: self.keeper.has_place(), ..answer }
            }
            Request::Reload => self.reload(uid).await,
            // They go with their connection, see [`PauseService::hand_over`].
            Request::Upgrade | Request::TakeOver { .. } => Response::refused("not here"),
            Request::TakeBack { who } => {
                let answer = self.acks.take_back(who, uid).await;
                Response { kept: self.keeper.has_place(), ..answer }
            }
            Request::Names { of, start } => match self.names(of, &start).await {
                Some(names) => Response { names, ..self.done(None, Vec::new()) },
                None => Response::refused("the server ends"),
            },
        }
    }

    /// Passes on a request for a hand-over with its connection, on which it is answered.
    pub(super) async fn hand_over(&self, request: Request, stream: UnixStream, uid: u32) {
        let Ok(stream) = stream.into_std() else { return };
        let request = match request {
            Request::TakeOver { version } => HandoverRequest::TakeOver { stream, version },
            _ => HandoverRequest::Upgrade { stream, uid },
        };
        // The connection is closed when the server stops.
        let _ = self.server.handovers.send(request).await;
    }

    async fn reload(&self, uid: u32) -> Response {
        tracing::info!(target: TARGET, reload_asked_by = uid, "uid {uid} asks for a reload");
        match self.server.reloads.reload().await {
            Ok(report) => {
                let waiting = report.waiting.join(", ");
                let warning = (!report.waiting.is_empty())
                    .then(|| format!("a change of {waiting} counts only after a restart"));
                Response { lines: report.lines(), ..self.done(warning, Vec::new()) }
            }
            Err(fault) => Response::refused(format!("keys and configuration stay as they were: {fault}")),
        }
    }

    /// Counts a request by its outcome.
    pub(super) fn count(&self, outcome: ResponseStatus) {
        self.metrics.request(outcome);
    }

    async fn pause(&self, pattern: Glob, length: Duration, reason: Option<Reason>, uid: u32) -> Response {
        // As it is written down.
        let now = SystemTime::from(WallTime::from(wall_now()));
        let until = Some(now + length);
        let pause = Pause { pattern, from: None, until, reason, by: RequestedBy::User(uid), since: now };
        // Pauses that have ended make room first.
        self.settle(now);
        if let Err(ScheduleFull) = self.pauses.change(|list| list.add(pause.clone())) {
            let most = Schedule::MAX_PAUSES;
            return Response::refused(format!(
                "there are {most} pauses, which is the most that there may be; resume some of them, or pause a pattern that \
                 fits more names"
            ));
        }
        self.settle(now);
        let warning = match self.keeper.keep().await {
            WriteOutcome::Written => None,
            WriteOutcome::Nowhere => Some(
                "the server has no --state-dir, so it forgets this pause when it is started again".to_owned(),
            ),
            WriteOutcome::Failed(fault) => {
                Some(format!("{fault}; the server may forget this pause when it is started again"))
            }
        };
        let matches = self.matches(&pause.pattern).await;
        Response { matches, ..self.done(warning, vec![pause.to_json()]) }
    }

    /// The agents that a pattern matches; `None` when the server stops.
    async fn matches(&self, pattern: &Glob) -> Option<Matches> {
        let mut matches = NameMatches::default();
        let mut next = Some(0);
        while let Some(from) = next {
            let (answer, answered) = oneshot::channel();
            self.queries.send(Query::Matching { pattern: pattern.clone(), from, answer }).await.ok()?;
            let slice = answered.await.ok()?;
            matches += slice.matches;
            next = slice.next;
        }
        let names = matches.names.iter().map(|name| name.to_string()).collect();
        Some(Matches { agents: matches.agents as u64, names })
    }

    async fn resume(&self, pattern: &Glob, uid: u32) -> Response {
        let text = pattern.as_str().escape_debug();
        // A pause that has ended cannot be resumed.
        self.settle(wall_now());
        let lifted = match self.pauses.change(|list| list.lift(pattern)) {
            ResumeResult::Done(pause) => pause,
            ResumeResult::Planned => {
                return Response::refused(format!(
                    "{text} is paused by the configuration's file; take that out there, and send the server SIGHUP"
                ));
            }
            ResumeResult::Unknown => {
                return Response::refused(format!(
                    "there is no pause of {text}; `varta-server pauses` has those that there are"
                ));
            }
        };
        let Pause { by, .. } = lifted;
        tracing::info!(
            target: TARGET,
            pattern = %text,
            %by,
            lifted_by = uid,
            "{text} is no longer paused: uid {uid} has lifted the pause by {by}"
        );
        self.settle(wall_now());
        let warning = match self.keeper.keep().await {
            WriteOutcome::Written | WriteOutcome::Nowhere => None,
            WriteOutcome::Failed(fault) => {
                Some(format!("{fault}; the pause may come back when the server is started again"))
            }
        };
        self.done(warning, vec![lifted.to_json()])
    }

    fn list(&self) -> Response {
        let now = wall_now();
        let listed = |pause: &Pause| {
            let mut listed = pause.to_json();
            listed["in_force"] = json!(pause.is_in_force(now));
            listed
        };
        let is_there = |pause: &&Pause| !pause.is_over(now);
        self.done(None, self.pauses.look(|list| list.iter().filter(is_there).map(listed).collect()))
    }

    fn done(&self, warning: Option<String>, pauses: Vec<Value>) -> Response {
        let kept = self.keeper.has_place();
        Response { outcome: ResponseStatus::Ok, word: warning, pauses, kept, ..Response::refused("") }
    }

    /// Starts and ends pauses in time, until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// The kernel has no timer left.
    pub(super) async fn keep_time(&self, stop: &CancellationToken) -> Result<(), Error> {
        let failed = |source| Error::Runtime { action: "set a timer for pauses", source };
        let alarm = WallTimer::new().map_err(failed)?;
        loop {
            alarm.set(self.advance().await).map_err(failed)?;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.pauses.changed() => {}
                rang = alarm.rings() => rang.map_err(failed)?,
            }
        }
    }

    /// Writes the pauses again when others have removed or moved their file, until `stop` is cancelled.
    pub(super) async fn keep_file(&self, watcher: &FileWatcher, stop: &CancellationToken) {
        let Some(path) = self.keeper.path() else { return stop.cancelled().await };
        loop {
            // Before the look, so that no change in between is missed.
            let mut changes = watcher.watch(path);
            let is_missing = self.pauses.look(|list| list.asked().next().is_some()) && !path.exists();
            let is_written = !is_missing || self.keeper.keep().await == WriteOutcome::Written;
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.next() => {}
                // The directory is made again by the state service.
                () = tokio::time::sleep(FIRST_DELAY), if !is_written => {}
            }
        }
    }

    /// Advances the schedule to the present, and returns the time of its next change.
    async fn advance(&self) -> Option<SystemTime> {
        let turn = self.settle(wall_now());
        if turn.over.iter().any(|pause| matches!(pause.by, RequestedBy::User(_))) {
            // A failure is logged there; an ended pause in the file has no effect.
            self.keeper.keep().await;
        }
        turn.next
    }

    fn settle(&self, now: SystemTime) -> Tick {
        let turn = self.pauses.turn(now);
        self.metrics.in_force(turn.in_force);
        turn
    }
}
