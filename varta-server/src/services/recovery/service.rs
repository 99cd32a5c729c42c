//! Puts recovery together and starts it.

use tokio::sync::mpsc;

use crate::base::error::Error;
use crate::metrics::family;
use crate::services::alerts::notifier::Notifier;
use crate::services::audit::{AuditLog, Trail};
use crate::services::context::Context;
use crate::services::maintenance::pauses::Pauses;
use crate::services::recovery::executor::Doer;
use crate::services::recovery::metrics::RecoveryMetrics;
use crate::services::recovery::options::RecoveryOptions;
use crate::services::recovery::task::{Desk, NewRules};

/// Starts it, if there is or may be a rule by which something is done. Its figures are there in any case.
///
/// # Errors
///
/// When a thread cannot be started, or descriptors are short.
pub(crate) fn start(
    options: RecoveryOptions,
    audit: Option<AuditLog>,
    new_rules: Option<mpsc::Receiver<NewRules>>,
    context: &mut Context,
    notifier: Notifier,
    pauses: &Pauses,
) -> Result<(), Error> {
    let failed = |action| move |source| Error::Runtime { action, source };
    let metrics = RecoveryMetrics::new(&context.registry);
    let missing = context.registry.counter(family::AUDIT_MISSING, &[]);
    let Some(new_rules) = new_rules else { return Ok(()) };
    announce(&options, audit.is_some());
    let mut trail = Trail::none();
    if let Some(audit) = audit {
        let started = Trail::start(audit, missing);
        let (started, done) = started.map_err(failed("start the thread that writes the audit log"))?;
        trail = started;
        context.spawn_thread("audit log", "thread that writes the audit log", done);
    }
    let transitions = context.subscribe("recovery");
    let doer = Doer {
        queries: context.queries.clone(),
        pauses: pauses.clone(),
        trail,
        metrics,
        notifier,
        host: context.host.to_string(),
        environment: options.environment.clone(),
        is_dry_run: options.is_dry_run,
        goes_on_without_trail: options.goes_on_without_trail,
    };
    let desk = Desk::new(options, doer, context.clock, transitions, new_rules);
    let desk = desk.map_err(failed("start recovery"))?;
    let stop = context.stop.clone();
    context.spawn("recovery", async {
        desk.run(stop).await;
        Ok(())
    });
    Ok(())
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
