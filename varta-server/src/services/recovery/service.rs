//! Puts recovery together, starts it, and gives it other rules when the file is read again.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::base::error::Error;
use crate::observe::ProcReader;
use crate::services::alerts::notifier::Notifier;
use crate::services::audit::AuditWriter;
use crate::services::context::Context;
use crate::services::maintenance::pauses::Pauses;
use crate::services::recovery::executor::ActionExecutor;
use crate::services::recovery::journal::Journal;
use crate::services::recovery::kept::{RecoveryFile, Saving};
use crate::services::recovery::metrics::{RecoveryMetrics, SINK};
use crate::services::recovery::options::RecoveryOptions;
use crate::services::recovery::task::{ForNextServer, RecoveryTask};

/// The capability before it runs. Without rules, and without a file that may get some, it has its metrics and
/// nothing else.
#[derive(Debug)]
pub(crate) struct Recovery {
    options: RecoveryOptions,
    file: Option<RecoveryFile>,
    to_task: mpsc::Sender<RecoveryOptions>,
    changes: mpsc::Receiver<RecoveryOptions>,
}

impl Recovery {
    /// Takes the options, which have been checked. With a state directory budgets and attempts survive a restart.
    ///
    /// # Errors
    ///
    /// A newer server has written what is kept of recovery.
    pub(crate) fn open(options: RecoveryOptions, context: &Context) -> Result<Self, Error> {
        let (to_task, changes) = mpsc::channel(1);
        let is_wanted = !options.rules.is_empty() || options.may_get_rules;
        let directory = context.state_dir.as_ref().filter(|_| is_wanted);
        let file = directory.map(RecoveryFile::open).transpose()?;
        Ok(Recovery { options, file, to_task, changes })
    }

    /// The way to give it other rules and limits while it runs.
    pub(crate) fn reload(&self, is_audited: bool) -> Reload {
        Reload { is_audited, to_task: self.to_task.clone() }
    }

    /// Starts the task that acts, if there is or may be a rule by which something is done, and returns what it does.
    ///
    /// # Errors
    ///
    /// When descriptors are short.
    pub(crate) fn start(
        self,
        context: &mut Context,
        audit: AuditWriter,
        notifier: Notifier,
        pauses: &Pauses,
    ) -> Result<Journal, Error> {
        let (metrics, journal) = (Arc::new(RecoveryMetrics::new(&context.registry)), Journal::default());
        let Recovery { options, file, changes, .. } = self;
        if options.rules.is_empty() && !options.may_get_rules {
            return Ok(journal);
        }
        announce(&options, audit.is_on());
        let transitions = context.subscribe(SINK);
        let executor = ActionExecutor {
            queries: context.queries.clone(),
            pauses: pauses.clone(),
            audit,
            metrics,
            processes: Arc::new(ProcReader::find()),
            notifier,
            host: context.host.to_string(),
            journal: journal.clone(),
            environment: options.environment.clone(),
            max_pressure: options.max_pressure,
            is_dry_run: options.is_dry_run,
            allow_without_audit: options.allow_without_audit,
        };
        let most = context.descriptors.commands;
        let (work, estate, queries) = (context.work.clone(), context.estate.clone(), context.queries.clone());
        let next = ForNextServer { saving: Saving::new(file), work, estate, queries };
        let task = RecoveryTask::new(options, executor, most, context.clock, transitions, changes, next)
            .map_err(|source| Error::Runtime { action: "start recovery", source })?;
        let stop = context.stop.clone();
        context.spawn("recovery", async {
            task.run(stop).await;
            Ok(())
        });
        Ok(journal)
    }
}

/// What the file of `--config` says of recovery, read while the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    /// Whether there is an audit log, as it was at the start.
    is_audited: bool,
    to_task: mpsc::Sender<RecoveryOptions>,
}

/// Rules and limits that do not count yet.
#[derive(Debug)]
pub(crate) struct Staged {
    options: RecoveryOptions,
    to_task: mpsc::Sender<RecoveryOptions>,
}

impl Reload {
    /// Takes the options, which have been checked. Nothing changes by it.
    ///
    /// # Errors
    ///
    /// The rules would be carried out without the audit log that the options name, as there was none at the start.
    pub(crate) fn stage(&self, options: RecoveryOptions, is_audited: bool) -> Result<Staged, Error> {
        if is_audited && !self.is_audited && !options.rules.is_empty() {
            let fault = "counts only after a restart, and recovery would act without it until then; restart the server";
            return Err(Error::Option { option: "--audit-log", fault: fault.to_owned() });
        }
        Ok(Staged { options, to_task: self.to_task.clone() })
    }
}

impl Staged {
    /// Has them count from now on. `None` when the server is about to end.
    pub(crate) async fn commit(self) -> Option<()> {
        warn_of_programs(&self.options);
        self.to_task.send(self.options).await.ok()
    }
}

/// Logs what recovery may do, and warns of commands that cannot run.
fn announce(options: &RecoveryOptions, has_audit_log: bool) {
    let RecoveryOptions { rules, budget, is_dry_run, .. } = options;
    if rules.is_empty() {
        // A reload may add rules.
        return;
    }
    let what = if *is_dry_run { "says what it would do" } else { "acts" };
    let plural = if rules.len() == 1 { "" } else { "s" };
    tracing::info!(
        target: "varta::recovery",
        rules = rules.len(),
        %budget,
        dry_run = is_dry_run,
        audit_log = has_audit_log,
        "recovery {what} by {} rule{plural}, with a budget of {budget} in all",
        rules.len()
    );
    warn_of_programs(options);
}

/// Warns of commands that cannot run.
fn warn_of_programs(options: &RecoveryOptions) {
    for (program, fault) in options.programs_not_found() {
        tracing::warn!(
            target: "varta::recovery",
            program,
            "a recovery command cannot be run as it is: {fault}; it is looked for again each time"
        );
    }
}
