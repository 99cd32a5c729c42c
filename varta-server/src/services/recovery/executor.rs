//! Executes one job: checks that the action is still needed, records it, and carries it out.
//!
//! The order makes it safe. A pidfd is opened first, so that the pid cannot be reused unnoticed; then the
//! tracker is queried, which has processed all beats sent so far; then the audit record is made durable; and
//! because that takes time, the tracker is queried again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::base::clock::wall_now;
use crate::domain::tracker::{AgentStatus, NameCount, Transition, Verdict};
use crate::engine::query::{NamedSlice, Query};
use crate::observe::ProcReader;
use crate::services::alerts::Notification;
use crate::services::alerts::notifier::Notifier;
use crate::services::audit::AuditWriter;
use crate::services::maintenance::pauses::Pauses;
use crate::services::recovery::action_target::{
    PreparedAction, TargetProcess, fill, find_program, search_path, target_of, variables_of,
};
use crate::services::recovery::audit_fields::{ActionReport, facts_of, log_command, reason_text};
use crate::services::recovery::command::{CommandLine, NotFilled, Placeholder};
use crate::services::recovery::held::{refusal_of_held, refusal_of_starved};
use crate::services::recovery::job::{ActionOutcome, Job, Refusal};
use crate::services::recovery::journal::Journal;
use crate::services::recovery::metrics::{ActionResult as Came, RecoveryMetrics};
use crate::services::recovery::options::RecoveryOptions;
use crate::services::recovery::pressure_limits::PressureLimits;
use crate::services::recovery::rule::{Action, UnhealthyState};
use crate::services::recovery::runner::{self, CommandResult, Program, ShutdownSignal};
use crate::services::recovery::signal_target::SignalTarget;

/// The parts that every job needs.
pub(crate) struct ActionExecutor {
    pub(crate) queries: mpsc::Sender<Query>,
    pub(crate) pauses: Pauses,
    pub(crate) audit: AuditWriter,
    pub(crate) metrics: Arc<RecoveryMetrics>,
    /// Reads what the process of an agent is doing.
    pub(crate) processes: Arc<ProcReader>,
    /// The handle for notifications.
    pub(crate) notifier: Notifier,
    /// The name of this host.
    pub(crate) host: String,
    pub(crate) journal: Journal,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) max_pressure: PressureLimits,
    pub(crate) is_dry_run: bool,
    pub(crate) allow_without_audit: bool,
}

impl ActionExecutor {
    /// The same, by other options.
    pub(super) fn by(&self, options: &RecoveryOptions) -> Self {
        ActionExecutor {
            queries: self.queries.clone(),
            pauses: self.pauses.clone(),
            audit: self.audit.clone(),
            metrics: Arc::clone(&self.metrics),
            processes: Arc::clone(&self.processes),
            notifier: self.notifier.clone(),
            host: self.host.clone(),
            journal: self.journal.clone(),
            environment: options.environment.clone(),
            max_pressure: options.max_pressure,
            is_dry_run: options.is_dry_run,
            allow_without_audit: options.allow_without_audit,
        }
    }

    /// Executes a job. Commands are ended when the guard of `kept` is dropped.
    pub(super) async fn act(&self, job: &Job, kept: &ShutdownSignal) -> ActionOutcome {
        let outcome = self.try_to_act(job, kept).await;
        match outcome {
            Err(outcome @ (ActionOutcome::Skipped | ActionOutcome::Withdrawn)) => {
                let came = if outcome == ActionOutcome::Skipped { Came::Skipped } else { Came::Withdrawn };
                self.metrics.action(job.action(), came);
                if outcome == ActionOutcome::Skipped {
                    self.journal.note(job, "its process has ended".to_owned(), came);
                }
                outcome
            }
            Ok(came) => came,
            Err(outcome) => outcome,
        }
    }

    async fn try_to_act(&self, job: &Job, kept: &ShutdownSignal) -> Result<ActionOutcome, ActionOutcome> {
        let action = job.action();
        self.check_may(job)?;
        let target = target_of(&job.transition);
        let standing = self.check_still(job).await?;
        self.check_held(job).await?;
        let fact = json!(standing.silence.as_secs_f64());
        let deed = match action {
            Action::Notify => return self.notify(job),
            Action::Signal(signal, scope) => match (target, job.transition.process) {
                (TargetProcess::Lives(pidfd), Some(process)) => {
                    let target =
                        SignalTarget::find(pidfd, process, *scope).map_err(ActionOutcome::Refused)?;
                    PreparedAction::Signal(target, *signal)
                }
                (TargetProcess::NotHeld, _) => return Err(ActionOutcome::Refused(Refusal::NotHeld)),
                (
                    TargetProcess::Lives(_)
                    | TargetProcess::Ended
                    | TargetProcess::Replaced
                    | TargetProcess::None,
                    _,
                ) => return Err(ActionOutcome::Skipped),
            },
            Action::Command(command, timeout) => {
                self.check_pid(job)?;
                let arguments = fill(command, &job.transition, standing.silence).map_err(|fault| {
                    let (NotFilled::Unknown(place) | NotFilled::Unsafe(place)) = fault;
                    let why = match fault {
                        NotFilled::Unknown(_) => "nothing is known for it",
                        NotFilled::Unsafe(_) => {
                            "what is known might be taken for an option, or is not for a command line"
                        }
                    };
                    tracing::warn!(
                        target: "varta::recovery",
                        agent = %job.transition.agent,
                        "`{command}` is not run for {}: {{{}}}: {why}",
                        job.transition.agent,
                        place.as_str()
                    );
                    ActionOutcome::Refused(Refusal::Argument)
                })?;
                PreparedAction::Command { command: command.clone(), arguments, timeout: *timeout }
            }
        };
        self.check_others(job, standing).await?;
        let mut facts = facts_of(job, &self.host);
        facts.insert("silent_s".to_owned(), fact);
        deed.describe(&mut facts);
        if self.is_dry_run {
            tracing::warn!(target: "varta::recovery", agent = %job.transition.agent, "would {deed} for {}", reason_text(job));
            self.metrics.action(action, Came::DryRun);
            self.journal.note(job, deed.to_string(), Came::DryRun);
            self.audit.record("dry_run", facts).await;
            return Ok(ActionOutcome::Failed);
        }
        let is_written = self.audit.record("fired", facts.clone()).await || self.allow_without_audit;
        // The agent may have changed while the record was written.
        let still = if is_written {
            self.check_again(job).await
        } else {
            Err(ActionOutcome::Refused(Refusal::NoTrail))
        };
        if let Err(outcome) = still {
            if let ActionOutcome::Refused(refusal) = outcome {
                facts.insert("reason".to_owned(), json!(refusal.as_str()));
            }
            self.audit.note("withdrawn", facts, false);
            return Err(outcome);
        }
        let entry = self.journal.begin(job, deed.to_string());
        let report = self.execute(job, deed, kept).await;
        self.journal.end(entry, &report);
        self.metrics.action(action, report.came);
        facts.insert("result".to_owned(), json!(report.came.as_str()));
        facts.extend(report.facts);
        self.audit.note("outcome", facts, false);
        Ok(match report.came {
            Came::Done => ActionOutcome::Done,
            _ if report.did_not_stay => ActionOutcome::DidNotStay,
            _ => ActionOutcome::Failed,
        })
    }

    /// Whether the agent may be acted on at present.
    fn check_may(&self, job: &Job) -> Result<(), ActionOutcome> {
        if self.pauses.is_paused(&job.transition.agent.name, wall_now()) {
            return Err(ActionOutcome::Refused(Refusal::Paused));
        }
        Ok(())
    }

    /// Whether the agent is the same, and still in an unhealthy state.
    async fn check_still(&self, job: &Job) -> Result<AgentStatus, ActionOutcome> {
        let Transition { agent, process, .. } = &*job.transition;
        let (answer, answered) = oneshot::channel();
        let query = Query::Status { agent: agent.clone(), answer };
        self.queries.send(query).await.map_err(|_| ActionOutcome::Withdrawn)?;
        let standing = answered.await.ok().flatten().ok_or(ActionOutcome::Withdrawn)?;
        let is_for_this =
            UnhealthyState::of(standing.verdict).is_some_and(|state| job.rule.states.contains(&state));
        let has_obeyed = job.was_signalled && matches!(standing.verdict, Verdict::Gone | Verdict::Down);
        let is_another = match (standing.process, *process) {
            (Some(present), Some(then)) => !present.may_be(then),
            (present, then) => present.is_some() != then.is_some(),
        };
        if !is_for_this && !has_obeyed || is_another {
            return Err(ActionOutcome::Withdrawn);
        }
        if !standing.is_observed && !matches!(job.action(), Action::Notify) {
            return Err(ActionOutcome::Refused(Refusal::Blind));
        }
        Ok(standing)
    }

    /// Repeats the checks once the record is durable.
    async fn check_again(&self, job: &Job) -> Result<(), ActionOutcome> {
        self.check_still(job).await?;
        self.check_held(job).await?;
        self.check_may(job)?;
        self.check_pid(job)
    }

    /// Whether the host is starved, or its process is in a state in which only a rule that names that state acts.
    async fn check_held(&self, job: &Job) -> Result<(), ActionOutcome> {
        let (processes, job, limits) = (Arc::clone(&self.processes), job.clone(), self.max_pressure);
        // Not on this thread, which others wait for: files of `/proc` may be slow.
        let refusal = tokio::task::spawn_blocking(move || {
            refusal_of_starved(&processes, limits, &job).or_else(|| refusal_of_held(&processes, &job))
        });
        let refusal = refusal.await;
        match refusal {
            Ok(Some(refusal)) => Err(ActionOutcome::Refused(refusal)),
            // Nothing is held against the action that cannot be seen.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Whether a command would get a pid that another process has by now.
    fn check_pid(&self, job: &Job) -> Result<(), ActionOutcome> {
        match job.action() {
            Action::Command(command, _)
                if command.has(Placeholder::Pid)
                    && matches!(target_of(&job.transition), TargetProcess::Replaced) =>
            {
                Err(ActionOutcome::Refused(Refusal::PidReused))
            }
            Action::Command(..) | Action::Signal(..) | Action::Notify => Ok(()),
        }
    }

    /// Whether enough other agents of the name are healthy; and whether an earlier command has already
    /// replaced an ended process, perhaps by an agent that does not name its predecessor.
    async fn check_others(&self, job: &Job, standing: AgentStatus) -> Result<(), ActionOutcome> {
        let is_up = matches!(standing.verdict, Verdict::Up(_));
        let keep_up = job.rule.min_healthy.unwrap_or(u32::from(is_up));
        let may_have_helped = job.has_helped && matches!(standing.verdict, Verdict::Down | Verdict::Gone);
        if keep_up == 0 && !may_have_helped {
            return Ok(());
        }
        let mut named = NameCount::default();
        let mut next = Some(0);
        while let Some(from) = next {
            let (answer, answered) = oneshot::channel();
            let name = Arc::clone(&job.transition.agent.name);
            let query = Query::CountByName { name, from, answer };
            self.queries.send(query).await.map_err(|_| ActionOutcome::Withdrawn)?;
            let slice: NamedSlice = answered.await.map_err(|_| ActionOutcome::Withdrawn)?;
            named += slice.named;
            next = slice.next;
        }
        if may_have_helped && named.up > 0 {
            return Err(ActionOutcome::Withdrawn);
        }
        let is_alone = named.all <= 1;
        if is_alone || named.up >= keep_up as usize {
            Ok(())
        } else {
            Err(ActionOutcome::Refused(Refusal::MinHealthy))
        }
    }

    fn notify(&self, job: &Job) -> Result<ActionOutcome, ActionOutcome> {
        tracing::warn!(
            target: "varta::recovery",
            agent = %job.transition.agent,
            attempt = job.attempt,
            "attention: {}",
            reason_text(job)
        );
        let Transition { agent, .. } = &*job.transition;
        let facts = facts_of(job, &self.host);
        self.notifier.send(&Notification { agent: agent.clone(), text: reason_text(job), facts });
        self.metrics.action(job.action(), Came::Done);
        self.journal.note(job, "send a notification".to_owned(), Came::Done);
        Ok(ActionOutcome::Done)
    }

    async fn execute(&self, job: &Job, deed: PreparedAction, kept: &ShutdownSignal) -> ActionReport {
        let agent = &job.transition.agent;
        match deed {
            PreparedAction::Signal(target, signal) => {
                let whom = format!("{target}{agent}");
                // Not on this thread, which others wait for: a cgroup may have very many processes.
                let sent = tokio::task::spawn_blocking(move || target.send(signal)).await;
                match sent.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                    Ok(processes) => {
                        tracing::warn!(
                            target: "varta::recovery",
                            agent = %agent,
                            processes,
                            "sent {signal} to {whom}: {}",
                            reason_text(job)
                        );
                        ActionReport::new(Came::Done, [("processes", json!(processes))])
                    }
                    Err(error) => {
                        tracing::error!(
                            target: "varta::recovery",
                            agent = %agent,
                            "{signal} cannot be sent to {whom}: {error}"
                        );
                        ActionReport::new(Came::Failed, [("error", json!(error.to_string()))])
                    }
                }
            }
            PreparedAction::Command { command, arguments, timeout } => {
                let ran = self.run(job, &command, arguments, timeout, kept).await;
                log_command(job, &command, ran)
            }
        }
    }

    /// Runs a command on the blocking pool.
    async fn run(
        &self,
        job: &Job,
        command: &CommandLine,
        arguments: Vec<String>,
        timeout: Duration,
        kept: &ShutdownSignal,
    ) -> std::io::Result<CommandResult> {
        let environment = self.environment_of(job);
        let path = find_program(command.program(), &search_path(&self.environment))?;
        let program = Program { path, arguments, environment, timeout, term_to_kill: Program::TERM_TO_KILL };
        let kept = kept.try_clone()?;
        self.metrics.running.increment(1);
        let ran = tokio::task::spawn_blocking(move || runner::run(&program, &kept)).await;
        self.metrics.running.decrement(1);
        ran.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// The environment of a command; the operator's variables come last and take precedence.
    fn environment_of(&self, job: &Job) -> Vec<(String, String)> {
        let mut variables = vec![("PATH".to_owned(), search_path(&self.environment))];
        variables.extend(variables_of(&job.transition, job.attempt, &self.host));
        variables.extend(self.environment.iter().cloned());
        variables
    }
}
