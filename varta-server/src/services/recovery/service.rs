//! Puts recovery together and starts it.

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::engine::Feed;
use crate::engine::query::Query;
use crate::metrics::Registry;
use crate::services::alerts::notifier::Notifier;
use crate::services::audit::metrics::AUDIT_MISSING;
use crate::services::audit::{AuditLog, Trail};
use crate::services::context::{Ended, thread_panicked};
use crate::services::maintenance::pauses::Pauses;
use crate::services::recovery::executor::Doer;
use crate::services::recovery::metrics::RecoveryMetrics;
use crate::services::recovery::options::RecoveryOptions;
use crate::services::recovery::task::{Desk, NewRules};

/// What it needs of the rest of the server.
pub(crate) struct Means<'s> {
    pub(crate) registry: &'s Registry,
    pub(crate) queries: mpsc::Sender<Query>,
    pub(crate) pauses: Pauses,
    pub(crate) clock: Clock,
    /// The name of this host.
    pub(crate) host: String,
    pub(crate) notifier: Notifier,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: &'s mut JoinSet<Ended>,
}

impl Means<'_> {
    /// Starts it, if there is or may be a rule by which something is done. Its figures are there in any case.
    pub(crate) fn start_recovery(
        self,
        options: RecoveryOptions,
        audit: Option<AuditLog>,
        new_rules: Option<mpsc::Receiver<NewRules>>,
    ) -> Result<Option<Feed>, Error> {
        let failed = |action| move |source| Error::Runtime { action, source };
        let Means { registry, queries, pauses, clock, host, notifier, stop, tasks } = self;
        let metrics = RecoveryMetrics::new(registry);
        let missing = registry.counter(AUDIT_MISSING, &[]);
        let Some(new_rules) = new_rules else { return Ok(None) };
        announce(&options, audit.is_some());
        let mut trail = Trail::none();
        if let Some(audit) = audit {
            let started = Trail::start(audit, missing);
            let (started, done) = started.map_err(failed("start the thread that writes the audit log"))?;
            trail = started;
            tasks.spawn(async {
                ("audit log", done.await.map_err(|_| thread_panicked("thread that writes the audit log")))
            });
        }
        let (feed, transitions) = Feed::new(registry, "recovery");
        let doer = Doer {
            queries,
            pauses,
            trail,
            metrics,
            notifier,
            host,
            environment: options.environment.clone(),
            is_dry_run: options.is_dry_run,
            goes_on_without_trail: options.goes_on_without_trail,
        };
        let desk = Desk::new(options, doer, clock, transitions, new_rules);
        let desk = desk.map_err(failed("start recovery"))?;
        tasks.spawn(async move {
            desk.run(stop).await;
            ("recovery", Ok(()))
        });
        Ok(Some(feed))
    }
}

/// Says in the log what may be done, and warns of what will not work.
fn announce(options: &RecoveryOptions, has_trail: bool) {
    let RecoveryOptions { rules, budget, is_dry_run, .. } = options;
    if rules.is_empty() {
        // There may be some when the file is read again.
        return;
    }
    let what = if *is_dry_run { "says what it would do" } else { "acts" };
    let plural = if rules.len() == 1 { "" } else { "s" };
    tracing::info!(
        target: "varta::recovery",
        rules = rules.len(),
        %budget,
        dry_run = is_dry_run,
        audit_log = has_trail,
        "recovery {what} by {} rule{plural}, with a budget of {budget} in all",
        rules.len()
    );
    for (program, fault) in options.programs_not_found() {
        tracing::warn!(
            target: "varta::recovery",
            program,
            "a recovery command cannot be run as it is: {fault}; it is looked for again each time"
        );
    }
}
