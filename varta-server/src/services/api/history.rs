//! What the API says of the past: from the history in the state directory, and where there is none from the latest
//! changes.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use crate::domain::tracker::{AgentId, Problem};
use crate::services::api::changes::{What, record};
use crate::services::api::shared::{Api, Refusal};
use crate::services::api::uptime::{Part, Uptime, parts, uptime};
use crate::services::state::{HistoryFilter, HistoryReader, HistoryRow, HistoryStep, HistorySteps};

/// The times of which the uptime is told, in milliseconds.
pub(super) const WINDOWS: [(&str, u64); 4] =
    [("1h", 3_600_000), ("24h", 86_400_000), ("7d", 7 * 86_400_000), ("30d", 30 * 86_400_000)];
/// The longest of them.
const LONGEST: u64 = WINDOWS[3].1;

/// Some changes, the newest first.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) source: &'static str,
    pub(super) changes: Vec<Value>,
    /// The number behind which the next ones are; `None` if there are no more.
    pub(super) next: Option<i64>,
}

impl Api {
    /// Changes of the past.
    pub(super) async fn past(&self, mut filter: HistoryFilter) -> Result<Past, Refusal> {
        let latest = self.latest(&filter);
        let Some(history) = &self.history else { return Ok(latest) };
        let (most, is_first) = (filter.most, filter.before.is_none());
        // One more says whether there are more.
        filter.most = most + 1;
        let rows = self.read(history, move |history| history.changes(&filter)).await?;
        let mut written: VecDeque<_> = rows.iter().map(|row| (Some(row.number), self.of_row(row))).collect();
        if is_first {
            // What is not written yet is newer.
            let is_written = |change: &Value| written.iter().any(|(_, row)| is_same(row, change));
            let unwritten = latest.changes.into_iter().take_while(|change| !is_written(change));
            let unwritten: Vec<_> = unwritten.map(|change| (None, change)).collect();
            for change in unwritten.into_iter().rev() {
                written.push_front(change);
            }
        }
        let has_more = written.len() > most;
        written.truncate(most);
        let last = written.back().and_then(|(number, _)| *number);
        // Of a page that has nothing written yet the next one begins with the newest that is.
        let behind = last.or_else(|| rows.first().map(|row| row.number.saturating_add(1)));
        let changes = written.into_iter().map(|(_, change)| change).collect();
        Ok(Past { source: "history", changes, next: behind.filter(|_| has_more) })
    }

    /// The same of what is kept in memory.
    fn latest(&self, filter: &HistoryFilter) -> Past {
        let HistoryFilter { name, agent, cause, state, from, until, before, most } = filter;
        let is_wanted = |number: u64, what: &What| {
            let What::Verdict(change, at) = what else { return None };
            let at_millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
            let wanted = name.as_ref().is_none_or(|name| name.matches(&change.agent.name))
                && agent.as_ref().is_none_or(|agent| change.agent == *agent)
                && cause.as_deref().is_none_or(|cause| change.cause.as_str() == cause)
                && state.is_none_or(|state| change.to.as_str() == state)
                && from.is_none_or(|from| at_millis >= from)
                && until.is_none_or(|until| at_millis <= until)
                && before.is_none_or(|before| i64::try_from(number).is_ok_and(|number| number < before));
            wanted.then(|| (number, record(change, *at, &self.host)))
        };
        let all = self.changes.newest_first();
        let mut found: Vec<_> =
            all.iter().filter_map(|change| is_wanted(change.number, &change.what)).take(most + 1).collect();
        let has_more = found.len() > *most;
        found.truncate(*most);
        let next = found.last().and_then(|(number, _)| i64::try_from(*number).ok()).filter(|_| has_more);
        Past { source: "memory", changes: found.into_iter().map(|(_, change)| change).collect(), next }
    }

    /// The parts of the time since `from`, in milliseconds of Unix time, of each of these agents with its present state.
    pub(super) async fn parts(
        &self,
        agents: Vec<(AgentId, Option<&'static str>)>,
        (from, until): (u64, u64),
    ) -> Result<Vec<Vec<Part>>, Refusal> {
        let steps = match &self.history {
            Some(history) => {
                let ids: Vec<_> = agents.iter().map(|(agent, _)| agent.clone()).collect();
                self.read(history, move |history| history.steps(&ids, from)).await?
            }
            None => self.latest_steps(from),
        };
        let of_agent = |(agent, present): (AgentId, Option<&str>)| {
            let of_agent = steps.of.get(&agent).map_or(&[][..], Vec::as_slice);
            parts(of_agent, present, steps.kept_since, (from, until))
        };
        Ok(agents.into_iter().map(of_agent).collect())
    }

    /// The uptime of an agent, by the names of the windows.
    pub(super) async fn uptimes(
        &self,
        agent: AgentId,
        present: Option<&'static str>,
        now: u64,
    ) -> Result<Map<String, Value>, Refusal> {
        let of_agent = self.parts(vec![(agent, present)], (now.saturating_sub(LONGEST), now)).await?;
        let window = |(name, length): (&str, u64)| {
            (name.to_owned(), json!(uptime(&of_agent, (now.saturating_sub(length), now))))
        };
        Ok(WINDOWS.into_iter().map(window).collect())
    }

    /// The uptime of a name, which is up while one of its agents is. `present` are those that are known now.
    pub(super) async fn uptime_of_name(
        &self,
        name: String,
        present: Vec<(AgentId, &'static str)>,
        (from, until): (u64, u64),
    ) -> Result<Option<Uptime>, Refusal> {
        let mut steps = match &self.history {
            Some(history) => self.read(history, move |history| history.steps_of_name(&name, from)).await?,
            None => {
                let mut steps = self.latest_steps(from);
                steps.of.retain(|agent, _| *agent.name == *name);
                steps
            }
        };
        let kept_since = steps.kept_since;
        let mut all: Vec<_> = present
            .into_iter()
            .map(|(agent, state)| {
                let of_agent = steps.of.remove(&agent).unwrap_or_default();
                parts(&of_agent, Some(state), kept_since, (from, until))
            })
            .collect();
        // What the tracker has forgotten is of no state any more.
        all.extend(steps.of.into_values().map(|mut of_agent| {
            if let Some(last) = of_agent.last() {
                let over = HistoryStep { was: None, became: "gone".to_owned(), is_critical: false, ..*last };
                let is_well = last.became == "up";
                if is_well {
                    of_agent.push(over);
                }
            }
            parts(&of_agent, None, kept_since, (from, until))
        }));
        Ok(uptime(&all, (from, until)))
    }

    /// The steps of all agents that are kept in memory.
    fn latest_steps(&self, from: u64) -> HistorySteps {
        let mut steps = HistorySteps::default();
        for change in self.changes.newest_first().iter().rev() {
            let What::Verdict(change, at) = &change.what else { continue };
            let at = at.as_millis();
            steps.kept_since.get_or_insert(at);
            if at < from {
                continue;
            }
            steps.of.entry(change.agent.clone()).or_default().push(HistoryStep {
                at,
                was: change.from.map(|from| from.as_str().to_owned()),
                became: change.to.as_str().to_owned(),
                is_critical: change.last.status == varta_proto::Status::Critical,
            });
        }
        steps
    }

    /// Reads the history on another thread, a few at once.
    async fn read<T: Send + 'static>(
        &self,
        history: &Arc<HistoryReader>,
        read: impl FnOnce(&HistoryReader) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = Arc::clone(&self.disk).acquire_owned().await.map_err(|_| Refusal::Stopping)?;
        let history = Arc::clone(history);
        let read = spawn_blocking(move || {
            let _turn = turn;
            read(&history)
        });
        read.await.map_err(|_| Refusal::Stopping)?.map_err(Refusal::Unreadable)
    }

    /// A row of the history as a record.
    fn of_row(&self, row: &HistoryRow) -> Value {
        let HistoryRow { agent, .. } = row;
        let mut fields = json!({
            "at": row.at.to_string(),
            "id": agent.instance(&self.host),
            "agent": &*agent.name,
            "pid": agent.shown_pid().unwrap_or(0),
            "host": agent.origin.host(&self.host),
            "transport": agent.origin.transport().as_str(),
            "to": row.became,
            "status": row.status,
            "cause": row.cause,
            "silence_ms": row.silence_ms,
            "payload": row.payload,
            "beats": row.beats,
            "problem": problem_of(&row.became, &row.status).map(Problem::as_str),
        });
        let optional = [
            ("twin", (agent.twin.number() > 1).then(|| json!(agent.twin.number()))),
            ("from", row.was.as_ref().map(|was| json!(was))),
            ("exit_code", row.exit_code.map(|code| json!(code))),
            ("signal", row.signal.map(|signal| json!(signal))),
            ("reason", row.reason.as_ref().map(|reason| json!(reason))),
            ("silence_is_at_least", row.silence_is_at_least.then_some(Value::Bool(true))),
            ("latency_us", row.latency_us.map(|latency| json!(latency))),
            ("dossier", row.dossier.as_ref().map(|dossier| json!(dossier))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                fields[name] = value;
            }
        }
        fields
    }
}

/// Whether two records are of one change, of which one may lack what the history does not keep.
fn is_same(left: &Value, right: &Value) -> bool {
    ["id", "at", "to", "cause"].iter().all(|name| left[name] == right[name])
}

/// What is wrong with an agent of this verdict and status, by their names.
fn problem_of(state: &str, status: &str) -> Option<Problem> {
    match (state, status) {
        ("down", _) => Some(Problem::Down),
        ("stalled", _) => Some(Problem::Stalled),
        ("expected", _) => Some(Problem::Missing),
        ("up", "critical") => Some(Problem::Critical),
        _ => None,
    }
}
