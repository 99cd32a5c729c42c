//! Reads of the history by others than the writer, each on a connection of its own, which changes nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use tokio_util::sync::CancellationToken;
use varta_proto::Status;

use crate::base::Glob;
use crate::base::time::WallTime;
use crate::domain::tracker::{AgentId, Twin, Verdict};
use crate::services::state::database::DATABASE;
use crate::services::state::encode::origin_text;
use crate::services::state::registry::{parse_origin, parse_status, parse_verdict};
use crate::services::state::schema::BUSY_FOR;

/// So many instructions of the database's machine are carried out until it is asked whether somebody still waits: less
/// than a millisecond.
const ASK_AFTER: i32 = 10_000;

/// The longest time for one read: the whole history takes a hundredth of it.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The way to the history of a state directory. What is read is given up after ten seconds, and when `gone` is cancelled:
/// nobody waits for it any more.
#[derive(Clone, Debug)]
pub(crate) struct HistoryReader {
    path: PathBuf,
    within: Duration,
}

/// Which changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoryFilter {
    pub(crate) name: Option<Glob>,
    pub(crate) agent: Option<AgentId>,
    pub(crate) cause: Option<String>,
    /// The verdict after it.
    pub(crate) state: Option<&'static str>,
    /// In milliseconds of Unix time, both included.
    pub(crate) from: Option<i64>,
    pub(crate) until: Option<i64>,
    /// Only those with a lower number.
    pub(crate) before: Option<i64>,
    /// The most of them.
    pub(crate) most: usize,
}

/// A change that was written.
#[derive(Clone, Debug)]
pub(crate) struct HistoryRow {
    pub(crate) number: i64,
    pub(crate) at: WallTime,
    pub(crate) agent: AgentId,
    /// Of one that was up its status then is not known.
    pub(crate) was: Option<Verdict>,
    pub(crate) became: Verdict,
    pub(crate) cause: String,
    pub(crate) exit_code: Option<u8>,
    pub(crate) signal: Option<u8>,
    pub(crate) reason: Option<String>,
    pub(crate) silence_ms: u64,
    pub(crate) silence_is_at_least: bool,
    pub(crate) latency_us: Option<u64>,
    pub(crate) status: Status,
    pub(crate) payload: u32,
    pub(crate) beats: u64,
    pub(crate) dossier: Option<String>,
}

/// Changes that were written.
#[derive(Debug, Default)]
pub(crate) struct HistoryRows {
    /// The newest first.
    pub(crate) rows: Vec<HistoryRow>,
    /// How many have words that this server does not know.
    pub(crate) left_out: usize,
}

/// A change of one agent, without what led to it.
#[derive(Clone, Debug)]
pub(crate) struct HistoryStep {
    /// In milliseconds of Unix time.
    pub(crate) at: u64,
    pub(crate) was: Option<Verdict>,
    pub(crate) became: Verdict,
}

/// The changes of some agents.
#[derive(Debug, Default)]
pub(crate) struct HistorySteps {
    /// Each in order.
    pub(crate) of: HashMap<AgentId, Vec<HistoryStep>>,
    /// When the oldest change was that is kept of any agent, in milliseconds of Unix time.
    pub(crate) kept_since: Option<u64>,
}

const COLUMNS: &str = "id, at_ms, name, origin, pid, twin, was, became, cause, exit_code, signal, reason, silence_ms, \
                       silent_at_least, latency_us, status, payload, beats, dossier";

impl HistoryReader {
    /// The history in the directory of `--state-dir`.
    pub(super) fn new(directory: &Path) -> Self {
        HistoryReader { path: directory.join(DATABASE), within: READ_WITHIN }
    }

    /// The newest changes first.
    ///
    /// # Errors
    ///
    /// Why the database cannot be read, with its path.
    pub(crate) fn changes(
        &self,
        filter: &HistoryFilter,
        gone: &CancellationToken,
    ) -> Result<HistoryRows, String> {
        self.read(gone, |database| {
            let HistoryFilter { name, agent, cause, state, from, until, before, most } = filter;
            let mut statement = database.prepare(&format!(
                "SELECT {COLUMNS} FROM history
                 WHERE id < ?1 AND at_ms >= ?2 AND at_ms <= ?3 AND (?4 IS NULL OR cause = ?4)
                    AND (?5 IS NULL OR became = ?5)
                    AND (?6 IS NULL OR (name = ?6 AND origin = ?7 AND pid = ?8 AND twin = ?9))
                 ORDER BY id DESC"
            ))?;
            let mut rows = statement.query(params![
                before.unwrap_or(i64::MAX),
                from.unwrap_or(i64::MIN),
                until.unwrap_or(i64::MAX),
                cause,
                state,
                agent.as_ref().map(|agent| &*agent.name),
                agent.as_ref().map(|agent| origin_text(agent.origin)),
                agent.as_ref().map(|agent| agent.pid),
                agent.as_ref().map(|agent| agent.twin.number()),
            ])?;
            let mut found = HistoryRows::default();
            while found.rows.len() < *most
                && let Some(row) = rows.next()?
            {
                match known(history_row(row))? {
                    Some(row) if name.as_ref().is_none_or(|name| name.matches(&row.agent.name)) => {
                        found.rows.push(row);
                    }
                    Some(_) => {}
                    None => found.left_out += 1,
                }
            }
            Ok(found)
        })
    }

    /// The changes of these agents since a time in milliseconds of Unix time, in order.
    ///
    /// # Errors
    ///
    /// Why the database cannot be read, with its path.
    pub(crate) fn steps(
        &self,
        agents: &[AgentId],
        since: u64,
        gone: &CancellationToken,
    ) -> Result<HistorySteps, String> {
        self.steps_of(since, gone, |agent| agents.contains(agent))
    }

    /// The changes of all agents with this name, likewise.
    ///
    /// # Errors
    ///
    /// The same.
    pub(crate) fn steps_of_name(
        &self,
        name: &str,
        since: u64,
        gone: &CancellationToken,
    ) -> Result<HistorySteps, String> {
        self.steps_of(since, gone, |agent| &*agent.name == name)
    }

    fn steps_of(
        &self,
        since: u64,
        gone: &CancellationToken,
        is_wanted: impl Fn(&AgentId) -> bool,
    ) -> Result<HistorySteps, String> {
        self.read(gone, |database| {
            let oldest = "SELECT at_ms FROM history ORDER BY id LIMIT 1";
            let oldest = database.query_row(oldest, [], |row| number(row, 0)).optional()?;
            let mut statement = database.prepare(
                "SELECT at_ms, name, origin, pid, twin, was, became, status FROM history WHERE at_ms >= ?1 ORDER BY id",
            )?;
            let mut rows = statement.query([i64::try_from(since).unwrap_or(i64::MAX)])?;
            let mut steps = HistorySteps { kept_since: oldest, ..HistorySteps::default() };
            while let Some(row) = rows.next()? {
                let Some(agent) = known(agent_of(row, 1))?.filter(&is_wanted) else { continue };
                let status = known(status_of(row, 7))?.unwrap_or(Status::Ok);
                // From a verdict on that this server does not know, nothing is known of the agent.
                let (was, became) = known(verdicts_of(row, 5, status))?.unwrap_or((None, Verdict::Unknown));
                let step = HistoryStep { at: number(row, 0)?, was, became };
                steps.of.entry(agent).or_default().push(step);
            }
            Ok(steps)
        })
    }

    fn read<T>(
        &self,
        gone: &CancellationToken,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let (asked, until) = (gone.clone(), Instant::now() + self.within);
        let read = Connection::open_with_flags(&self.path, flags).and_then(|mut database| {
            database
                .progress_handler(ASK_AFTER, Some(move || asked.is_cancelled() || Instant::now() >= until))?;
            database.busy_timeout(BUSY_FOR)?;
            database.pragma_update(None, "trusted_schema", false)?;
            read(&database)
        });
        if gone.is_cancelled() {
            tracing::debug!(target: "varta::state", "a read of the history is given up: nobody waits for it any more");
        }
        read.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) if !gone.is_cancelled() => {
                format!("{}: cannot be read within {:?}", self.path.display(), self.within)
            }
            _ => format!("{}: cannot be read: {error}", self.path.display()),
        })
    }
}

/// What was read, or `None` if a row has a word that this server does not know: another version has written it.
fn known<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match read {
        Err(rusqlite::Error::FromSqlConversionFailure(..)) => Ok(None),
        read => read.map(Some),
    }
}

fn history_row(row: &Row<'_>) -> rusqlite::Result<HistoryRow> {
    let status = status_of(row, 15)?;
    let (was, became) = verdicts_of(row, 6, status)?;
    Ok(HistoryRow {
        number: row.get(0)?,
        at: WallTime::default().after(Duration::from_millis(number(row, 1)?)),
        agent: agent_of(row, 2)?,
        was,
        became,
        cause: row.get(8)?,
        exit_code: row.get(9)?,
        signal: row.get(10)?,
        reason: row.get(11)?,
        silence_ms: number(row, 12)?,
        silence_is_at_least: row.get(13)?,
        latency_us: row.get::<_, Option<i64>>(14)?.map(|micros| micros.max(0).cast_unsigned()),
        status,
        payload: row.get(16)?,
        beats: number(row, 17)?,
        dossier: row.get(18)?,
    })
}

/// A number that is never negative.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| number.max(0).cast_unsigned())
}

fn senseless(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.to_owned().into())
}

fn status_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Status> {
    parse_status(row.get_ref(column)?.as_str()?).ok_or_else(|| senseless(column, "no status"))
}

/// The verdicts before and after a change, in two columns from this one on. The status is that after it.
fn verdicts_of(row: &Row<'_>, first: usize, status: Status) -> rusqlite::Result<(Option<Verdict>, Verdict)> {
    let verdict = |column: usize, status: Status| match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(text) => parse_verdict(text, status).map(Some).ok_or_else(|| senseless(column, "no verdict")),
    };
    let became = verdict(first + 1, status)?.ok_or_else(|| senseless(first + 1, "no verdict"))?;
    Ok((verdict(first, Status::Ok)?, became))
}

/// The agent in four columns from this one on.
fn agent_of(row: &Row<'_>, first: usize) -> rusqlite::Result<AgentId> {
    let name: Arc<str> = row.get(first)?;
    let origin =
        parse_origin(row.get_ref(first + 1)?.as_str()?).ok_or_else(|| senseless(first + 1, "no origin"))?;
    let twin = Twin::from_number(row.get(first + 3)?).ok_or_else(|| senseless(first + 3, "no twin"))?;
    Ok(AgentId { name, origin, pid: row.get(first + 2)?, twin })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::services::state::schema;

    const ENDLESS: &str =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n WHERE x < 0";

    fn endless(database: &Connection) -> rusqlite::Result<i64> {
        database.query_row(ENDLESS, [], |row| row.get(0))
    }

    /// A directory with a database, and a reader of it.
    fn reader() -> (tempfile::TempDir, HistoryReader) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DATABASE);
        Connection::open(path).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
        let reader = HistoryReader::new(directory.path());
        (directory, reader)
    }

    #[test]
    fn a_read_without_an_end_ends_when_nobody_waits_for_it_any_more() {
        let (_directory, reader) = reader();
        let gone = CancellationToken::new();
        let reading = thread::spawn({
            let gone = gone.clone();
            move || reader.read(&gone, endless)
        });
        gone.cancel();
        let fault = reading.join().unwrap().unwrap_err();
        assert!(fault.ends_with("cannot be read: interrupted"), "{fault}");
    }

    #[test]
    fn a_read_without_an_end_ends_after_a_while_though_somebody_waits() {
        let (_directory, reader) = reader();
        let reader = HistoryReader { within: Duration::from_millis(10), ..reader };
        let fault = reader.read(&CancellationToken::new(), endless).unwrap_err();
        assert!(fault.ends_with("cannot be read within 10ms"), "{fault}");
    }

    #[test]
    fn what_another_version_has_written_is_left_out_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let database = schema::open(&directory.path().join(DATABASE)).unwrap().connection;
        let write = |name: &str, at: i64, became: &str| {
            let columns = "at_ms, name, origin, pid, twin, became, cause, silence_ms, status, payload, beats";
            let statement = format!(
                "INSERT INTO history ({columns}) VALUES (?1, ?2, 'local', 7, 1, ?3, 'silent', 0, 'ok', 0, 1)"
            );
            database.execute(&statement, params![at, name, became]).unwrap();
        };
        write("web", 1, "up");
        write("web", 2, "asleep");
        write("web", 3, "stalled");
        let (reader, gone) = (HistoryReader::new(directory.path()), CancellationToken::new());
        let found = reader.changes(&HistoryFilter { most: 10, ..HistoryFilter::default() }, &gone).unwrap();
        assert_eq!((found.rows.len(), found.left_out), (2, 1));
        let steps = reader.steps_of_name("web", 0, &gone).unwrap();
        let became: Vec<_> = steps.of.values().flatten().map(|step| step.became.as_str()).collect();
        assert_eq!(became, ["up", "unknown", "stalled"]);
    }
}
