//! Hands the agents that a server before this one knew to the tracker, with what the kernel knows of them meanwhile.

use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::tracker::{Fate, Remembered, Tracker, Verdict};
use crate::ingest::Vault;
use crate::observe::{Boot, is_there};
use crate::services::state::registry::Kept;

/// Has the tracker remember all of `kept`, and says in the log what came of it.
pub(crate) fn restore(tracker: &mut Tracker, kept: Vec<Kept>, vault: Option<&Vault>, now: MonoTime) {
    if kept.is_empty() {
        return;
    }
    let boot = Boot::this();
    let last_heard = kept.iter().map(|kept| kept.agent.silent_before).min().unwrap_or(Duration::ZERO);
    let mut taken = 0;
    for Kept { mut agent, key, boot: its_boot } in kept {
        if let Some(fingerprint) = key {
            // Of a key that is not there any more it keeps the number: when the key comes back it is the same.
            let Some(number) = vault.and_then(|vault| vault.number_of(fingerprint)) else { continue };
            agent.lane.key = number;
        }
        let fate = fate(&mut agent, its_boot.as_deref().and_then(Boot::parse), boot.as_ref());
        taken += usize::from(tracker.remember(&agent, fate, now));
    }
    let population = tracker.population();
    tracing::info!(
        target: "varta::state",
        known = taken,
        expected = population[Verdict::EXPECTED],
        down = population[Verdict::DOWN],
        stalled = population[Verdict::STALLED],
        "{taken} agents are known from before this server's start, the last beat of any {last_heard:.3?} ago; who lives \
         is given one deadline from now on"
    );
}

/// What the kernel knows of an agent's process. What it cannot know any more is taken from the agent.
fn fate(agent: &mut Remembered, its_boot: Option<Boot>, boot: Option<&Boot>) -> Fate {
    if agent.agent.origin != Origin::Local {
        return Fate::Unknown;
    }
    let (Some(its_boot), Some(boot)) = (its_boot, boot) else { return Fate::Unknown };
    if its_boot.id != boot.id {
        // Start times count from the boot: another process may have this one now.
        agent.start_time = None;
        return Fate::Gone;
    }
    match agent.start_time {
        // In another namespace its pid is another, or none.
        Some(start_time) if its_boot.namespace == boot.namespace => {
            if is_there(agent.agent.pid, start_time) {
                Fate::Lives
            } else {
                Fate::Gone
            }
        }
        Some(_) | None => Fate::Unknown,
    }
}
