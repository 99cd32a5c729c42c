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
use crate::services::recovery::metrics::{RecoveryMetrics, SINK};
use crate::services::recovery::options::RecoveryOptions;
use crate::services::recovery::task::{NewRules, RecoveryTask};

/// The capability before it runs. Without rules, and without a file that may get some, it has its metrics and
/// nothing else.
#[derive(Debug)]
pub(crate) struct Recovery {
    options: RecoveryOptions,
    to_rules: mpsc::Sender<NewRules>,
    new_rules: mpsc::Receiver<NewRules>,
}

impl Recovery {
    /// Takes the options, which have been checked.
    pub(crate) fn open(options: RecoveryOptions) -> Self {
        let (to_rules, new_rules) = mpsc::channel(1);
        Recovery { options, to_rules, new_rules }
    }

    /// The way to give it other rules while it runs.
    pub(crate) fn reload(&self, is_audited: bool) -> Reload {
        let bounds = Bounds::of(&self.options, is_audited);
        Reload { bounds, to_rules: self.to_rules.clone() }
    }

    /// Starts the task that acts, if there is or may be a rule by which something is done.
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
    ) -> Result<(), Error> {
        let metrics = RecoveryMetrics::new(&context.registry);
        let Recovery { options, new_rules, .. } = self;
        if options.rules.is_empty() && !options.may_get_rules {
            return Ok(());
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
            environment: options.environment.clone(),
            is_dry_run: options.is_dry_run,
            allow_without_audit: options.allow_without_audit,
        };
        let most = context.descriptors.commands;
        let task = RecoveryTask::new(options, executor, most, context.clock, transitions, new_rules)
            .map_err(|source| Error::Runtime { action: "start recovery", source })?;
        let stop = context.stop.clone();
        context.spawn("recovery", async {
            task.run(stop).await;
            Ok(())
        });
        Ok(())
    }
}

/// What the file of `--config` says of recovery, read while the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    bounds: Bounds,
    to_rules: mpsc::Sender<NewRules>,
}

/// What bounds recovery, and stays as it was at the start.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    is_dry_run: bool,
    allows_remote: bool,
    is_audited: bool,
    allow_without_audit: bool,
}

impl Bounds {
    const fn of(options: &RecoveryOptions, is_audited: bool) -> Self {
        let RecoveryOptions { is_dry_run, allows_remote, allow_without_audit, .. } = *options;
        Bounds { is_dry_run, allows_remote, is_audited, allow_without_audit }
    }

    /// The option by which these are narrower than others.
    fn narrower_than(self, other: Bounds) -> Option<&'static str> {
        let by = [
            ("--recovery-dry-run", self.is_dry_run && !other.is_dry_run),
            ("--allow-recovery-for-remote", !self.allows_remote && other.allows_remote),
            ("--audit-log", self.is_audited && !other.is_audited),
            ("--recovery-without-audit", !self.allow_without_audit && other.allow_without_audit),
        ];
        by.into_iter().find(|(_, is_narrower)| *is_narrower).map(|(option, _)| option)
    }
}

/// Rules that do not count yet.
#[derive(Debug)]
pub(crate) struct Staged {
    options: RecoveryOptions,
    to_rules: mpsc::Sender<NewRules>,
}

impl Reload {
    /// The options that running recovery takes over: those of which rules are made.
    pub(crate) const OPTIONS: [&str; 6] = [
        "recovery-exec",
        "recovery-timeout",
        "recovery-debounce",
        "recovery-backoff",
        "recovery-attempts",
        "recovery-group-budget",
    ];

    /// Takes the rules of the options, which have been checked. Nothing changes by it.
    ///
    /// # Errors
    ///
    /// The rules would be carried out though the options bound them more narrowly than at the start.
    pub(crate) fn stage(&self, options: RecoveryOptions, is_audited: bool) -> Result<Staged, Error> {
        let narrower = Bounds::of(&options, is_audited).narrower_than(self.bounds);
        match narrower.filter(|_| !options.rules.is_empty()) {
            None => Ok(Staged { options, to_rules: self.to_rules.clone() }),
            Some(option) => {
                let fault = "counts only after a restart, and recovery would act without it until then; restart the server";
                Err(Error::Option { option, fault: fault.to_owned() })
            }
        }
    }
}

impl Staged {
    /// Has the rules count from now on. `None` when the server is about to end.
    pub(crate) async fn commit(self) -> Option<()> {
        warn_of_programs(&self.options);
        self.to_rules.send(self.options.rules).await.ok()
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
