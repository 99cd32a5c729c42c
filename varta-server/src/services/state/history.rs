//! The history table: the transitions of agents, bounded by number and age.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::params;

use crate::base::clock::WallClock;
use crate::base::time::millis;
use crate::domain::tracker::Transition;
use crate::services::state::encode::{origin_text, unix_millis, whole};

/// The most rows; the newest are kept.
pub(super) const MAX_ROWS: i64 = 100_000;
/// The longest time for which a row is kept.
pub(super) const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// The most rows that one write deletes for their age.
const PRUNED_AT_ONCE: i64 = 1_000;

pub(super) fn insert(
    database: &Connection,
    transition: &Transition,
    wall: WallClock,
) -> rusqlite::Result<()> {
    let Transition { agent, process, at, .. } = transition;
    let fields = transition.fields();
    database
        .prepare_cached(
            "INSERT INTO history (at_ms, name, origin, pid, twin, start_time, was, became, cause, exit_code, signal,
                reason, silence_ms, latency_us, status, payload, beats, dossier, silent_at_least)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        )?
        .execute(params![
            unix_millis(wall.at(*at)),
            fields.agent,
            origin_text(agent.origin),
            fields.pid,
            agent.twin.number(),
            process.map(|process| whole(process.start_time.get())),
            fields.from,
            fields.to,
            fields.cause,
            fields.exit_code,
            fields.signal,
            fields.reason,
            whole(fields.silence_ms),
            fields.latency_us.map(whole),
            fields.status,
            fields.payload,
            whole(fields.beats),
            fields.dossier.map(ToString::to_string),
            fields.silence_is_at_least,
        ])?;
    Ok(())
}

/// Deletes the rows beyond the limits of number and of age at `now`.
pub(super) fn prune(database: &Connection, now: i64) -> rusqlite::Result<()> {
    database
        .prepare_cached("DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?1")?
        .execute([MAX_ROWS])?;
    let too_old = now.saturating_sub(whole(millis(KEPT)));
    database
        .prepare_cached(
            "DELETE FROM history WHERE id IN (SELECT id FROM history ORDER BY id LIMIT ?1) AND at_ms < ?2",
        )?
        .execute([PRUNED_AT_ONCE, too_old])?;
    Ok(())
}
