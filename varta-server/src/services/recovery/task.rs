//! The recovery task: drives the planner, runs its jobs concurrently, and reports its refusals.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::Transition;
use crate::engine::handover::{Estate, WorkInHand};
use crate::engine::query::{Alarms, Query};
use crate::services::alerts::Notification;
use crate::services::recovery::audit_fields::{facts_of_agent, state};
use crate::services::recovery::executor::ActionExecutor;
use crate::services::recovery::job::{ActionOutcome, Refusal, RefusalNotice};
use crate::services::recovery::kept::Saving;
use crate::services::recovery::options::RecoveryOptions;
use crate::services::recovery::planner::Planner;
use crate::services::recovery::planner::estate::{LeftEpisodes, PlannerEstate};
use crate::services::recovery::runner::{ShutdownGuard, ShutdownSignal};

/// The time limit for jobs on shutdown: a command gets SIGTERM after two seconds and SIGKILL after three.
const END_WITHIN: Duration = Duration::from_millis(4_500);

/// The task and all that it owns.
pub(crate) struct RecoveryTask {
    planner: Planner,
    doer: Arc<ActionExecutor>,
    /// The most concurrent jobs. Further ones wait.
    most_at_once: usize,
    clock: Clock,
    transitions: mpsc::Receiver<Transition>,
    changes: mpsc::Receiver<RecoveryOptions>,
    keeper: ShutdownGuard,
    kept: ShutdownSignal,
    /// The numbers of running jobs by their tasks.
    tasks: HashMap<task::Id, u64>,
    /// What the server before this one was about to do.
    inherited: LeftEpisodes,
    /// Whether that server has ended, and did not hand over.
    is_restart: bool,
    next: ForNextServer,
}

/// What recovery needs for the server after this one, and has from the one before.
pub(crate) struct ForNextServer {
    pub(crate) saving: Saving,
    pub(crate) work: WorkInHand,
    pub(crate) estate: Estate,
    pub(crate) queries: mpsc::Sender<Query>,
}

/// The name of what is left to the next server.
const ESTATE: &str = "recovery";
/// The name under which the journal is left to it.
const JOURNAL: &str = "recovery_journal";

impl RecoveryTask {
    /// Builds the task.
    ///
    /// # Errors
    ///
    /// No file descriptors are left.
    pub(crate) fn new(
        options: RecoveryOptions,
        doer: ActionExecutor,
        most_at_once: usize,
        clock: Clock,
        transitions: mpsc::Receiver<Transition>,
        changes: mpsc::Receiver<RecoveryOptions>,
        next: ForNextServer,
    ) -> std::io::Result<Self> {
        let (keeper, kept) = ShutdownGuard::new()?;
        let rules = options.rules.into_iter().map(Arc::new).collect();
        let mut planner = Planner::new(rules, options.budget, options.allows_remote);
        let left = next.estate.take(ESTATE).and_then(|left| postcard::from_bytes(&left).ok());
        let is_restart = left.is_none();
        let left: Option<PlannerEstate> = left.or_else(|| next.saving.read(clock));
        let inherited = planner.inherit(left.unwrap_or_default());
        if let Some(left) = next.estate.take(JOURNAL) {
            doer.journal.inherit(&left);
        }
        Ok(RecoveryTask {
            planner,
            doer: Arc::new(doer),
            most_at_once,
            clock,
            transitions,
            changes,
            keeper,
            kept,
            tasks: HashMap::new(),
            inherited,
            is_restart,
            next,
        })
    }

    /// Runs until `stop` is cancelled or the queue of transitions closes. Running commands then have a short
    /// time to end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut jobs: JoinSet<ActionOutcome> = JoinSet::new();
        self.take_up().await;
        loop {
            self.begin_jobs(&mut jobs);
            self.next.work.set(jobs.len());
            self.tell();
            self.doer.metrics.cases.set(self.planner.cases() as f64);
            let is_held = self.next.work.is_held();
            let due = self.planner.poll_timeout().filter(|_| !is_held && jobs.len() < self.most_at_once);
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.clock.instant(due)).await,
                    None => std::future::pending().await,
                }
            };
            let save_at = self.next.saving.next_at();
            tokio::select! {
                () = stop.cancelled() => break,
                transition = self.transitions.recv() => match transition {
                    Some(transition) => self.planner.handle_transition(&transition, self.clock.now()),
                    None => break,
                },
                Some(ended) = jobs.join_next_with_id() => self.take_outcome(ended),
                Some(options) = self.changes.recv() => self.change(options),
                written = self.next.saving.written() => {
                    self.next.saving.finish(written);
                    continue;
                }
                () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => {
                    self.next.saving.begin(|| self.planner.leave(), self.clock);
                    continue;
                }
                () = sleep => {}
                () = self.next.work.may_begin(), if is_held => {}
            }
            self.next.saving.change();
        }
        self.next.saving.end(|| self.planner.leave(), self.clock).await;
        if let Ok(left) = postcard::to_allocvec(&self.planner.leave()) {
            self.next.estate.leave(ESTATE, left);
        }
        if let Some(left) = self.doer.journal.leave() {
            self.next.estate.leave(JOURNAL, left);
        }
        drop(self.keeper);
        let all = async { while jobs.join_next().await.is_some() {} };
        if tokio::time::timeout(END_WITHIN, all).await.is_err() {
            tracing::error!(
                target: "varta::recovery",
                "not all recovery commands have ended within {END_WITHIN:?}; they are left to themselves"
            );
        }
    }

    /// Goes by other options. Jobs that run go on by those that counted when they began.
    fn change(&mut self, options: RecoveryOptions) {
        self.doer = Arc::new(self.doer.by(&options));
        let rules = options.rules.into_iter().map(Arc::new).collect();
        self.planner.handle_options(rules, options.budget, options.allows_remote);
    }

    /// Goes on with what the server before this one was about to do about agents that are still in a bad state. If that
    /// has ended without handing over, it may not have begun to do anything about others.
    async fn take_up(&mut self) {
        let mut next = Some(0).filter(|_| self.is_restart || !self.inherited.is_empty());
        while let Some(from) = next {
            let (answer, answered) = oneshot::channel();
            if self.next.queries.send(Query::Alarms { from, answer }).await.is_err() {
                return;
            }
            let Ok(Alarms { found, next: behind, .. }) = answered.await else { return };
            for found in &found {
                match self.inherited.remove(&AgentKey::of(&found.agent)) {
                    Some(left) => self.planner.take_up(found, &left),
                    None if self.is_restart => self.planner.meet(found, self.clock.now()),
                    None => {}
                }
            }
            next = behind;
        }
    }

    fn begin_jobs(&mut self, jobs: &mut JoinSet<ActionOutcome>) {
        let now = self.clock.now();
        while !self.next.work.is_held()
            && jobs.len() < self.most_at_once
            && let Some(job) = self.planner.poll_job(now)
        {
            let kept = match self.kept.try_clone() {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::error!(
                        target: "varta::recovery",
                        "descriptors have run out, and nothing can be done about {}: {error}",
                        job.transition.agent
                    );
                    let outcome = ActionOutcome::Refused(Refusal::NoTrail);
                    self.planner.handle_outcome(job.number, outcome, now);
                    return;
                }
            };
            let doer = Arc::clone(&self.doer);
            let number = job.number;
            tracing::debug!(
                target: "varta::recovery",
                job = number,
                agent = %job.transition.agent,
                step = job.step,
                attempt = job.attempt,
                "job {number} begins: step {} of attempt {} for {}, which is {}",
                job.step + 1,
                job.attempt,
                job.transition.agent,
                job.transition.to
            );
            let task = jobs.spawn(async move { doer.act(&job, &kept).await });
            self.tasks.insert(task.id(), number);
        }
    }

    fn take_outcome(&mut self, ended: Result<(task::Id, ActionOutcome), JoinError>) {
        let (task, outcome) = match ended {
            Ok((task, outcome)) => (task, outcome),
            Err(error) => {
                tracing::error!(target: "varta::recovery", "a recovery job ended unasked: {error}");
                (error.id(), ActionOutcome::Refused(Refusal::NotAttested))
            }
        };
        if let Some(number) = self.tasks.remove(&task) {
            tracing::debug!(target: "varta::recovery", job = number, "job {number} has ended: {outcome:?}");
            self.planner.handle_outcome(number, outcome, self.clock.now());
        }
    }

    /// Reports refusals in the log, the metrics, the audit log and, once an agent is given up, to the
    /// webhook.
    fn tell(&mut self) {
        while let Some(RefusalNotice { transition, refusal, again_after }) = self.planner.poll_told() {
            self.doer.metrics.refused(refusal);
            self.doer.journal.refuse(&transition, refusal);
            let agent = &transition.agent;
            macro_rules! line {
                ($level:ident, $($what:tt)+) => {
                    tracing::$level!(
                        target: "varta::recovery",
                        agent = %agent,
                        state = state(transition.to),
                        reason = refusal.as_str(),
                        $($what)+
                    )
                };
            }
            match refusal {
                Refusal::GivenUp => line!(
                    error,
                    "given up: no attempt has helped {agent}, which is {}; {} until it has been well",
                    transition.to,
                    what_follows(again_after)
                ),
                _ => line!(
                    warn,
                    "nothing is done about {agent}, which is {}: {}",
                    transition.to,
                    refusal_reason(refusal)
                ),
            }
            let mut facts = facts_of_agent(&transition, &self.doer.host);
            facts.insert("reason".to_owned(), refusal.as_str().into());
            if refusal == Refusal::GivenUp {
                let text = format!("given up: no attempt has helped {agent}, which is {}", transition.to);
                self.doer.notifier.send(&Notification { agent: agent.clone(), text, facts: facts.clone() });
            }
            let event = if refusal == Refusal::GivenUp { "given_up" } else { "refused" };
            self.doer.audit.note(event, facts, true);
        }
    }
}

/// What is done about an agent that was given up.
fn what_follows(again_after: Option<Duration>) -> String {
    match again_after {
        Some(after) => format!("there is one attempt each {}", humantime::format_duration(after)),
        None => "nothing more is done".to_owned(),
    }
}

/// The reason as text.
const fn refusal_reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Budget => "--recovery-budget is spent; it is tried again when there is some",
        Refusal::GroupBudget => {
            "the budget for agents of this name is spent; it is tried again when there is some"
        }
        Refusal::Blind => "this server could not see for a while, and what it missed may have been beats",
        Refusal::Paused => "it is paused",
        Refusal::MinHealthy => "too few others of its name are up",
        Refusal::NoTrail => "it cannot be written down; see --audit-log and --recovery-without-audit",
        Refusal::Remote => {
            "it is of another host; commands are run for such with --allow-recovery-for-remote, and no signals sent"
        }
        Refusal::NotAttested => "its process cannot be told from another's",
        Refusal::NotHeld => {
            "the kernel does not let this server hold its process; are there descriptors left?"
        }
        Refusal::DumpingCore => {
            "the kernel writes its core dump; it is looked at again until that is complete, for ten minutes at most"
        }
        Refusal::HostPressure => {
            "the host is starved (--recovery-max-pressure); it is looked at again until that is over"
        }
        Refusal::Frozen => "its cgroup is frozen; it is looked at again until that is thawed",
        Refusal::Traced => {
            "a debugger or another tracer holds it; it is looked at again until that lets it go"
        }
        Refusal::SharedGroup => {
            "its process leads no process group, or this server is in that group; a signal to the group may reach others"
        }
        Refusal::SharedCgroup => {
            "its process is in no cgroup of its own, or this server is in that; a signal to the cgroup may reach others"
        }
        Refusal::PidReused => "its pid belongs to another process by now, and the command has {pid} in it",
        Refusal::Argument => "the command cannot be filled in",
        Refusal::TooMany => "too many agents are in a bad state at once",
        Refusal::FinalExitStatus => {
            "its process has said by its exit status that it is not to be started again (final-exit-status)"
        }
        Refusal::GivenUp => "no attempt has helped",
    }
}
