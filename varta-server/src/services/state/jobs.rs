//! The table of jobs: what the next server must know of each.

use rusqlite::{Connection, params};

use crate::domain::tracker::JobSnapshot;

/// The longest row that is read, in bytes. A job takes a few kilobytes.
const MAX_ROW: usize = 64 << 10;

/// Inserts or replaces the row of a job.
pub(super) fn put(database: &Connection, job: &JobSnapshot) -> rusqlite::Result<()> {
    let Ok(state) = serde_json::to_string(job) else { return Ok(()) };
    database
        .prepare_cached(
            "INSERT INTO jobs (name, state) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET state = ?2",
        )?
        .execute(params![&*job.name, state])?;
    Ok(())
}

/// Deletes the row of a job.
pub(super) fn remove(database: &Connection, name: &str) -> rusqlite::Result<()> {
    database.prepare_cached("DELETE FROM jobs WHERE name = ?1")?.execute([name])?;
    Ok(())
}

/// Replaces all rows.
pub(super) fn replace(database: &Connection, jobs: &[JobSnapshot]) -> rusqlite::Result<()> {
    database.prepare_cached("DELETE FROM jobs")?.execute([])?;
    jobs.iter().try_for_each(|job| put(database, job))
}

/// Reads the jobs, at most `most`, with the number of rows that make no sense. A database of an earlier version has
/// none.
pub(super) fn read(database: &Connection, most: usize) -> rusqlite::Result<(Vec<JobSnapshot>, usize)> {
    let exists = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'jobs'";
    if database.query_row(exists, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok((Vec::new(), 0));
    }
    let mut statement = database.prepare("SELECT state FROM jobs ORDER BY name LIMIT ?1")?;
    let mut rows = statement.query([i64::try_from(most).unwrap_or(i64::MAX)])?;
    let (mut jobs, mut senseless) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let text = row.get::<_, String>(0).ok().filter(|text| text.len() <= MAX_ROW);
        match text.and_then(|text| serde_json::from_str(&text).ok()) {
            Some(job) => jobs.push(job),
            None => senseless += 1,
        }
    }
    Ok((jobs, senseless))
}
