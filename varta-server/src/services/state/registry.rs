//! The registry table: what the next server must know of each agent.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;
use rusqlite::{Connection, Row};
use varta_proto::Status;

use crate::base::clock::WallClock;
use crate::base::time::{MonoTime, millis};
use crate::domain::beat::{KeyId, Origin, RemoteEndpoint};
use crate::domain::labels::Labels;
use crate::domain::service_message::MAX_STATUS_LEN;
use crate::domain::tracker::{
    AgentId, AgentSnapshot, Forgotten, LastReport, NameSource, RegistryChange, Twin, Verdict,
};
use crate::services::state::encode::{origin_text, unix_millis, whole};
use crate::services::state::jobs;
use crate::services::state::last_sign::Absence;

/// An agent as an earlier server persisted it.
#[derive(Clone, Debug)]
pub(crate) struct PersistedAgent {
    /// Its snapshot, with times on this server's clock; the key is resolved later.
    pub(crate) agent: AgentSnapshot,
    /// The fingerprint of its key.
    pub(crate) key: Option<u64>,
    /// The boot and PID namespace in which its pid is valid.
    pub(crate) boot: Option<String>,
}

/// What a row holds besides the snapshot.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) wall: WallClock,
    /// The present boot and PID namespace.
    pub(super) boot: Option<String>,
    /// The fingerprints of all keys, indexed by key id.
    pub(super) fingerprints: Vec<u64>,
    /// The number of the present or last sweep.
    pub(super) sweep: i64,
}

/// Inserts or replaces the row of an agent.
pub(super) fn put(database: &Connection, agent: &AgentSnapshot, context: &Context) -> rusqlite::Result<()> {
    let AgentSnapshot { agent: id, lane, last, .. } = agent;
    let Context { wall, boot, fingerprints, sweep } = context;
    let last_beat = unix_millis(wall.at(agent.last_beat)).saturating_sub(whole(millis(agent.silent_before)));
    let is_sealed = matches!(id.origin, Origin::SecureUdp(_));
    let key = fingerprints.get(usize::from(lane.key.0)).filter(|_| is_sealed);
    let busy_until = (agent.busy_until > MonoTime::START).then(|| unix_millis(wall.at(agent.busy_until)));
    database
        .prepare_cached(
            "INSERT INTO agents (origin, pid, twin, name, name_source, port, key, start_time, boot, verdict, status,
                payload, terminal, beats, lost, stalls, asked_us, busy_until_ms, last_beat_ms, first_seen_ms, sweep,
                unit, labels, silent_at_least, is_unawaited, said, stood_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
                ?23, ?24, ?25, ?26, ?27)
             ON CONFLICT DO UPDATE SET name = ?4, name_source = ?5, port = ?6, key = ?7, start_time = ?8, boot = ?9,
                verdict = ?10, status = ?11, payload = ?12, terminal = ?13, beats = ?14, lost = ?15, stalls = ?16,
                asked_us = ?17, busy_until_ms = ?18, last_beat_ms = ?19, sweep = ?21, unit = ?22, labels = ?23,
                silent_at_least = ?24, is_unawaited = ?25, said = ?26, stood_ms = ?27,
                first_seen_ms = iif(start_time IS ?8, first_seen_ms, ?20)",
        )?
        .execute(params![
            origin_text(id.origin),
            id.pid,
            id.twin.number(),
            &*id.name,
            name_source_as_str(agent.name_source),
            lane.port,
            // All 64 bits: SQLite's integers are signed.
            key.map(|key| key.cast_signed()),
            agent.start_time.map(|time| whole(time.get())),
            boot.as_ref().filter(|_| id.origin.address().is_none()),
            agent.verdict.as_str(),
            last.status.as_str(),
            last.payload,
            last.terminal,
            whole(last.beats),
            agent.lost,
            agent.stalls,
            agent.asked.map(|asked| i64::try_from(asked.as_micros()).unwrap_or(i64::MAX)),
            busy_until,
            last_beat,
            unix_millis(wall.wall),
            sweep,
            agent.unit.as_deref(),
            labels_text(&agent.labels),
            agent.silent_at_least,
            agent.is_unawaited,
            agent.said.as_deref(),
            agent.stood.map(|stood| whole(millis(stood))),
        ])?;
    Ok(())
}

/// Writes a change.
pub(super) fn apply(
    database: &Connection,
    change: &RegistryChange,
    context: &Context,
) -> rusqlite::Result<()> {
    match change {
        RegistryChange::Known(agent) => put(database, agent, context),
        // One that has not come has no row.
        RegistryChange::Forgotten(Forgotten { agent, .. }) => remove(database, agent),
        RegistryChange::Job(job) => jobs::put(database, job),
        RegistryChange::JobForgotten(name) => jobs::remove(database, name),
    }
}

/// Deletes the row of an agent.
pub(super) fn remove(database: &Connection, agent: &AgentId) -> rusqlite::Result<()> {
    database
        .prepare_cached("DELETE FROM agents WHERE origin = ?1 AND pid = ?2 AND twin = ?3")?
        .execute(params![origin_text(agent.origin), agent.pid, agent.twin.number()])?;
    Ok(())
}

/// Deletes the rows that the completed sweep has not written.
pub(super) fn remove_unmet(database: &Connection, sweep: i64) -> rusqlite::Result<()> {
    database.prepare_cached("DELETE FROM agents WHERE sweep < ?1")?.execute([sweep])?;
    Ok(())
}

/// Reads the agents that beat last, at most `most`, as of the end of the absence. Returns them with the number of invalid rows
/// and the number of the last sweep.
pub(super) fn read(
    database: &Connection,
    most: usize,
    absence: &Absence,
) -> rusqlite::Result<(Vec<PersistedAgent>, usize, i64)> {
    let mut statement = database.prepare("SELECT * FROM agents ORDER BY last_beat_ms DESC LIMIT ?1")?;
    let mut rows = statement.query([i64::try_from(most).unwrap_or(i64::MAX)])?;
    let (mut kept, mut senseless) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        match read_row(row, absence) {
            Some(agent) => kept.push(agent),
            None => senseless += 1,
        }
    }
    let sweep = database.query_row("SELECT ifnull(max(sweep), 0) FROM agents", [], |row| row.get(0))?;
    Ok((kept, senseless, sweep))
}

/// Parses a row; `None` if no server can have written it.
fn read_row(row: &Row<'_>, absence: &Absence) -> Option<PersistedAgent> {
    let WallClock { mono: now, wall, .. } = absence.wall;
    let text = |name: &str| row.get::<_, String>(name).ok();
    let number = |name: &str| row.get::<_, i64>(name).ok();
    let unsigned = |name: &str| u64::try_from(number(name)?).ok();
    let small = |name: &str| u32::try_from(number(name)?).ok();
    let from_now =
        |at: i64| Duration::from_millis(u64::try_from(at.saturating_sub(unix_millis(wall))).unwrap_or(0));

    let origin = parse_origin(&text("origin")?)?;
    let status = parse_status(&text("status")?)?;
    let verdict = parse_verdict(&text("verdict")?, status)?;
    // A wall clock that was set back must not make a last beat lie in the future.
    let by_row = u64::try_from(unix_millis(wall).saturating_sub(number("last_beat_ms")?)).unwrap_or(0);
    let (silent_before, is_least) = absence.silence(Duration::from_millis(by_row), verdict.is_awaited());
    let agent = AgentSnapshot {
        agent: AgentId {
            name: Arc::from(text("name")?),
            origin,
            pid: small("pid").filter(|pid| *pid > 0)?,
            twin: Twin::from_number(u8::try_from(number("twin")?).ok()?)?,
        },
        name_source: parse_name_source(&text("name_source")?)?,
        lane: RemoteEndpoint { port: u16::try_from(number("port")?).ok()?, key: KeyId::default() },
        start_time: unsigned("start_time").and_then(NonZeroU64::new),
        verdict,
        last: LastReport {
            status,
            payload: small("payload")?,
            terminal: number("terminal")? != 0,
            beats: unsigned("beats")?,
        },
        unit: text("unit").map(Arc::from),
        labels: parse_labels(&text("labels").unwrap_or_default()),
        asked: unsigned("asked_us").map(Duration::from_micros),
        busy_until: number("busy_until_ms").map_or(MonoTime::START, |until| now + from_now(until)),
        stalls: small("stalls")?,
        lost: small("lost")?,
        last_beat: now,
        silent_before,
        // A table of an earlier version has no such columns.
        silent_at_least: is_least || number("silent_at_least").is_some_and(|flag| flag != 0),
        is_unawaited: number("is_unawaited").is_some_and(|flag| flag != 0),
        said: text("said").filter(|said| said.len() <= MAX_STATUS_LEN).map(Arc::from),
        stood: unsigned("stood_ms").map(Duration::from_millis),
    };
    Some(PersistedAgent { agent, key: number("key").map(i64::cast_unsigned), boot: text("boot") })
}

pub(super) fn parse_origin(text: &str) -> Option<Origin> {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    match text.split_once(' ') {
        None if text == "notify" => Some(Origin::Notify),
        None => (text == "local").then_some(Origin::Local),
        Some(("named", uid)) => uid.parse().ok().map(|uid| Origin::Named { uid }),
        Some(("udp", host)) => address(host).map(Origin::Udp),
        Some(("secure_udp", host)) => address(host).map(Origin::SecureUdp),
        Some(_) => None,
    }
}

pub(super) fn parse_status(text: &str) -> Option<Status> {
    (0..=3).filter_map(Status::from_u8).find(|known| known.as_str() == text)
}

/// The verdict of this name; of one that is up, with this status.
pub(super) fn parse_verdict(text: &str, status: Status) -> Option<Verdict> {
    let all = [
        Verdict::Up(status),
        Verdict::Stalled,
        Verdict::Down,
        Verdict::Gone,
        Verdict::Unknown,
        Verdict::Expected,
    ];
    all.into_iter().find(|verdict| verdict.as_str() == text)
}

/// One line `key=value` for each label; neither part can contain a line break.
fn labels_text(labels: &Labels) -> Option<String> {
    let lines: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn parse_labels(text: &str) -> Labels {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

const fn name_source_as_str(source: NameSource) -> &'static str {
    match source {
        NameSource::Common => "common",
        NameSource::Group => "group",
        NameSource::Unit => "unit",
        NameSource::Agent => "agent",
    }
}

fn parse_name_source(text: &str) -> Option<NameSource> {
    let all = [NameSource::Common, NameSource::Group, NameSource::Unit, NameSource::Agent];
    all.into_iter().find(|source| name_source_as_str(*source) == text)
}
