//! The `seals` table: replay windows, so that the next server refuses what this one has accepted.

use rusqlite::params;
use rusqlite::{Connection, Row};

use crate::base::clock::WallClock;
use crate::base::time::MonoTime;
use crate::ingest::PersistedWindow;
use crate::services::state::encode::unix_millis;

/// Inserts a window, or replaces the one in the same slot.
pub(super) fn put(database: &Connection, seal: &PersistedWindow, wall: WallClock) -> rusqlite::Result<()> {
    let PersistedWindow { place, key, prefix, highest, continued_at, nonce, start, heard_at } = seal;
    database
        .prepare_cached(
            "INSERT OR REPLACE INTO seals (place, key, prefix, highest, continued_at, nonce, start_ms, heard_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            place,
            // All 64 bits of these: SQLite's integers are signed.
            key.cast_signed(),
            prefix,
            highest,
            continued_at.cast_signed(),
            nonce.cast_signed(),
            unix_millis(wall.at(MonoTime::START)).saturating_add(start / 1_000_000),
            unix_millis(wall.at(*heard_at)),
        ])?;
    Ok(())
}

/// Reads the windows with the most recent datagrams, at most `most`.
pub(super) fn read(
    database: &Connection,
    most: usize,
    wall: WallClock,
) -> rusqlite::Result<Vec<PersistedWindow>> {
    let mut statement = database
        .prepare("SELECT * FROM (SELECT * FROM seals ORDER BY heard_ms DESC LIMIT ?1) ORDER BY place")?;
    let rows = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| read_row(row, wall))?;
    rows.collect()
}

fn read_row(row: &Row<'_>, wall: WallClock) -> rusqlite::Result<PersistedWindow> {
    let start: i64 = row.get("start_ms")?;
    Ok(PersistedWindow {
        place: row.get("place")?,
        key: row.get::<_, i64>("key")?.cast_unsigned(),
        prefix: row.get("prefix")?,
        highest: row.get("highest")?,
        continued_at: row.get::<_, i64>("continued_at")?.cast_unsigned(),
        nonce: row.get::<_, i64>("nonce")?.cast_unsigned(),
        start: start.saturating_sub(unix_millis(wall.at(MonoTime::START))).saturating_mul(1_000_000),
        // The last datagram came before this server's start, and counts as if it had come at the start.
        heard_at: MonoTime::START,
    })
}
