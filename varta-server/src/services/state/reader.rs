//! Reads of the history by others than the writer, each on a connection of its own, which changes nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::base::Glob;
use crate::base::time::WallTime;
use crate::domain::tracker::{AgentId, Twin};
use crate::services::state::database::DATABASE;
use crate::services::state::encode::origin_text;
use crate::services::state::registry::parse_origin;
use crate::services::state::schema::BUSY_FOR;

/// The way to the history of a state directory.
#[derive(Clone, Debug)]
pub(crate) struct HistoryReader {
    path: PathBuf,
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
    pub(crate) was: Option<String>,
    pub(crate) became: String,
    pub(crate) cause: String,
    pub(crate) exit_code: Option<u8>,
    pub(crate) signal: Option<u8>,
    pub(crate) reason: Option<String>,
    pub(crate) silence_ms: u64,
    pub(crate) silence_is_at_least: bool,
    pub(crate) latency_us: Option<u64>,
    pub(crate) status: String,
    pub(crate) payload: u32,
    pub(crate) beats: u64,
    pub(crate) dossier: Option<String>,
}

/// A change of one agent, without what led to it.
#[derive(Clone, Debug)]
pub(crate) struct HistoryStep {
    /// In milliseconds of Unix time.
    pub(crate) at: u64,
    pub(crate) was: Option<String>,
    pub(crate) became: String,
    /// Whether it reported to be critical.
    pub(crate) is_critical: bool,
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
        HistoryReader { path: directory.join(DATABASE) }
    }

    /// The newest changes first.
    ///
    /// # Errors
    ///
    /// Why the database cannot be read, with its path.
    pub(crate) fn changes(&self, filter: &HistoryFilter) -> Result<Vec<HistoryRow>, String> {
        self.read(|database| {
            let HistoryFilter { name, agent, cause, state, from, until, before, most } = filter;
            let mut statement = database.prepare(&format!(
                "SELECT {COLUMNS} FROM history
                 WHERE id < ?1 AND at_ms >= ?2 AND at_ms <= ?3 AND (?4 IS NULL OR cause = ?4)
                    AND (?5 IS NULL OR became = ?5)
                    AND (?6 IS NULL OR (name = ?6 AND origin = ?7 AND pid = ?8 AND twin = ?9))
                 ORDER BY id DESC"
            ))?;
            let rows = statement.query_map(
                params![
                    before.unwrap_or(i64::MAX),
                    from.unwrap_or(i64::MIN),
                    until.unwrap_or(i64::MAX),
                    cause,
                    state,
                    agent.as_ref().map(|agent| &*agent.name),
                    agent.as_ref().map(|agent| origin_text(agent.origin)),
                    agent.as_ref().map(|agent| agent.pid),
                    agent.as_ref().map(|agent| agent.twin.number()),
                ],
                history_row,
            )?;
            let is_wanted = |row: &rusqlite::Result<HistoryRow>| match (row, name) {
                (Ok(row), Some(name)) => name.matches(&row.agent.name),
                (Ok(_) | Err(_), _) => true,
            };
            rows.filter(is_wanted).take(*most).collect()
        })
    }

    /// The changes of these agents since a time in milliseconds of Unix time, in order.
    ///
    /// # Errors
    ///
    /// Why the database cannot be read, with its path.
    pub(crate) fn steps(&self, agents: &[AgentId], since: u64) -> Result<HistorySteps, String> {
        self.steps_of(since, |agent| agents.contains(agent))
    }

    /// The changes of all agents with this name, likewise.
    ///
    /// # Errors
    ///
    /// The same.
    pub(crate) fn steps_of_name(&self, name: &str, since: u64) -> Result<HistorySteps, String> {
        self.steps_of(since, |agent| &*agent.name == name)
    }

    fn steps_of(&self, since: u64, is_wanted: impl Fn(&AgentId) -> bool) -> Result<HistorySteps, String> {
        self.read(|database| {
            let oldest = "SELECT at_ms FROM history ORDER BY id LIMIT 1";
            let oldest = database.query_row(oldest, [], |row| number(row, 0)).optional()?;
            let mut statement = database.prepare(
                "SELECT at_ms, name, origin, pid, twin, was, became, status FROM history WHERE at_ms >= ?1 ORDER BY id",
            )?;
            let mut rows = statement.query([i64::try_from(since).unwrap_or(i64::MAX)])?;
            let mut steps = HistorySteps { kept_since: oldest, ..HistorySteps::default() };
            while let Some(row) = rows.next()? {
                let agent = agent_of(row, 1)?;
                if is_wanted(&agent) {
                    let is_critical = row.get_ref(7)?.as_str()? == "critical";
                    let step = HistoryStep { at: number(row, 0)?, was: row.get(5)?, became: row.get(6)?, is_critical };
                    steps.of.entry(agent).or_default().push(step);
                }
            }
            Ok(steps)
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read = Connection::open_with_flags(&self.path, flags).and_then(|database| {
            database.busy_timeout(BUSY_FOR)?;
            database.pragma_update(None, "trusted_schema", false)?;
            read(&database)
        });
        read.map_err(|error| format!("{}: cannot be read: {error}", self.path.display()))
    }
}

fn history_row(row: &Row<'_>) -> rusqlite::Result<HistoryRow> {
    Ok(HistoryRow {
        number: row.get(0)?,
        at: WallTime::default().after(Duration::from_millis(number(row, 1)?)),
        agent: agent_of(row, 2)?,
        was: row.get(6)?,
        became: row.get(7)?,
        cause: row.get(8)?,
        exit_code: row.get(9)?,
        signal: row.get(10)?,
        reason: row.get(11)?,
        silence_ms: number(row, 12)?,
        silence_is_at_least: row.get(13)?,
        latency_us: row.get::<_, Option<i64>>(14)?.map(|micros| micros.max(0).cast_unsigned()),
        status: row.get(15)?,
        payload: row.get(16)?,
        beats: number(row, 17)?,
        dossier: row.get(18)?,
    })
}

/// A number that is never negative.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| number.max(0).cast_unsigned())
}

/// The agent in four columns from this one on.
fn agent_of(row: &Row<'_>, first: usize) -> rusqlite::Result<AgentId> {
    let senseless = |column: usize, what: &str| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.to_owned().into())
    };
    let name: Arc<str> = row.get(first)?;
    let origin =
        parse_origin(row.get_ref(first + 1)?.as_str()?).ok_or_else(|| senseless(first + 1, "no origin"))?;
    let twin = Twin::from_number(row.get(first + 3)?).ok_or_else(|| senseless(first + 3, "no twin"))?;
    Ok(AgentId { name, origin, pid: row.get(first + 2)?, twin })
}
