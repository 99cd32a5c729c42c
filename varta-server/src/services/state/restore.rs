//! Restores persisted agents to the tracker, with what the kernel shows of their processes now.

use std::time::Duration;

use crate::base::progress::Progress;
use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::tracker::{AgentSnapshot, Fate, Tracker, Verdict};
use crate::ingest::Keyring;
use crate::observe::{Boot, Remains};
use crate::services::state::registry::PersistedAgent;

/// The fewest agents whose restoration is shown on a terminal.
const SHOWN_FROM: usize = 10_000;

/// Restores `kept` to the tracker, and logs the result.
pub(crate) fn restore(tracker: &mut Tracker, kept: Vec<PersistedAgent>, keyring: &Keyring, now: MonoTime) {
    if kept.is_empty() {
        return;
    }
    let boot = Boot::this();
    let last_heard = kept.iter().map(|kept| kept.agent.silent_before).min().unwrap_or(Duration::ZERO);
    let progress = match kept.len() {
        ..SHOWN_FROM => Progress::hidden(),
        count => Progress::of_server("restoring agents", count as u64),
    };
    let mut taken = 0;
    for PersistedAgent { mut agent, key, boot: its_boot } in kept {
        if let Some(fingerprint) = key {
            // An unloaded key keeps its id, and has the same when it is loaded again.
            let Some(number) = keyring.number_of(fingerprint) else { continue };
            agent.lane.key = number;
        }
        let its_boot = its_boot.as_deref().and_then(Boot::parse);
        let fate = fate(&mut agent, its_boot.as_ref(), boot.as_ref());
        taken += usize::from(tracker.restore(&agent, fate, now));
        progress.advance(1);
    }
    drop(progress);
    let population = tracker.population();
    tracing::info!(
        target: "varta::state",
        known = taken,
        expected = population[Verdict::EXPECTED],
        down = population[Verdict::DOWN],
        stalled = population[Verdict::STALLED],
        "{taken} agents are known from before this server's start, silent for {last_heard:.3?} at least; each has one \
         deadline from now on"
    );
}

/// The fate of an agent's process. The start time becomes that which the process has in this time namespace;
/// one of another boot is cleared, because it is not comparable any more.
fn fate(agent: &mut AgentSnapshot, its_boot: Option<&Boot>, boot: Option<&Boot>) -> Fate {
    if matches!(agent.agent.origin, Origin::Named { .. }) {
        // It has no process; but what was under way when the host was booted is not any more.
        let is_rebooted = its_boot.zip(boot).is_some_and(|(its_boot, boot)| its_boot.id != boot.id);
        return if is_rebooted { Fate::Unknown } else { Fate::Lives };
    }
    if !agent.agent.origin.is_local() {
        return Fate::Unknown;
    }
    let (Some(its_boot), Some(boot)) = (its_boot, boot) else { return Fate::Unknown };
    if its_boot.id != boot.id {
        // Start times count from the boot: another process may have the same one now.
        agent.start_time = None;
        return Fate::Rebooted;
    }
    // In another PID namespace the pid means another process, or none.
    let start_time = agent.start_time.filter(|_| its_boot.namespace == boot.namespace);
    let Some(start_time) = start_time else { return Fate::Unknown };
    match boot.look_for(its_boot, agent.agent.pid, start_time) {
        Remains::Lives(start_time) => {
            agent.start_time = Some(start_time);
            Fate::Lives
        }
        Remains::Ended => Fate::Gone,
        Remains::Unknown => Fate::Unknown,
    }
}
