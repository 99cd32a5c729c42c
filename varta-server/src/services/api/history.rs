//! What the API says of the past: from the history in the state directory, and where there is none from the latest
//! changes.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::base::time::WallTime;
use crate::domain::tracker::{AgentId, Problem, Transition, Verdict};
use crate::services::api::changes::{Change, What, record};
use crate::services::api::shared::{Api, Refusal};
use crate::services::api::uptime::{Part, Uptime, parts, uptime};
use crate::services::state::{
    HistoryFilter, HistoryReader, HistoryRow, HistoryRows, HistoryStep, HistorySteps,
};

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
    /// How many the history has among them that this server cannot read: another version has written them.
    pub(super) left_out: usize,
    /// The number behind which the next ones are; `None` if there are no more.
    pub(super) next: Option<i64>,
}

impl Api {
    /// Changes of the past.
    pub(super) async fn past(&self, filter: HistoryFilter) -> Result<Past, Refusal> {
        let Some(history) = &self.history else { return Ok(self.latest(&filter)) };
        let HistoryFilter { most, before, .. } = filter;
        // One more says whether there are more.
        let asked = HistoryFilter { most: most + 1, ..filter.clone() };
        let HistoryRows { rows, left_out } =
            self.read(history, move |history, gone| history.changes(&asked, gone)).await?;
        let mut changes = Vec::new();
        if before.is_none() {
            // What is not written yet is newer.
            let kept = self.changes.newest_first();
            let newer = kept.iter().filter_map(|kept| Self::wanted(&filter, kept));
            let unwritten =
                newer.take_while(|(change, at)| !rows.iter().any(|row| is_same(row, change, *at)));
            changes.extend(unwritten.take(most + 1).map(|(change, at)| record(change, at, &self.host)));
        }
        let has_more = changes.len() + rows.len() > most;
        changes.truncate(most);
        let shown = &rows[..rows.len().min(most - changes.len())];
        changes.extend(shown.iter().map(|row| self.of_row(row)));
        // Of a page that has nothing written yet the next one begins with the newest that is.
        let last = shown.last().map(|row| row.number);
        let behind = last.or_else(|| rows.first().map(|row| row.number.saturating_add(1)));
        Ok(Past { source: "history", changes, left_out, next: behind.filter(|_| has_more) })
    }

    /// The same of what is kept in memory.
    fn latest(&self, filter: &HistoryFilter) -> Past {
        let all = self.changes.newest_first();
        let wanted = all.iter().filter_map(|kept| Some((kept.number, Self::wanted(filter, kept)?)));
        let mut found: Vec<_> = wanted.take(filter.most + 1).collect();
        let has_more = found.len() > filter.most;
        found.truncate(filter.most);
        let next = found.last().and_then(|(number, _)| i64::try_from(*number).ok()).filter(|_| has_more);
        let changes = found.into_iter().map(|(_, (change, at))| record(change, at, &self.host)).collect();
        Past { source: "memory", changes, left_out: 0, next }
    }

    /// A change that is kept in memory, if it is one of a verdict and wanted.
    fn wanted<'c>(filter: &HistoryFilter, kept: &'c Change) -> Option<(&'c Transition, WallTime)> {
        let HistoryFilter { name, agent, cause, state, from, until, before, most: _ } = filter;
        let What::Verdict(change, at) = &kept.what else { return None };
        let at_millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        let is_wanted = name.as_ref().is_none_or(|name| name.matches(&change.agent.name))
            && agent.as_ref().is_none_or(|agent| change.agent == *agent)
            && cause.as_deref().is_none_or(|cause| change.cause.as_str() == cause)
            && state.is_none_or(|state| change.to.as_str() == state)
            && from.is_none_or(|from| at_millis >= from)
            && until.is_none_or(|until| at_millis <= until)
            && before.is_none_or(|before| i64::try_from(kept.number).is_ok_and(|number| number < before));
        is_wanted.then_some((&**change, *at))
    }

    /// The parts of the time since `from`, in milliseconds of Unix time, of each of these agents with its present state.
    pub(super) async fn parts(
        &self,
        agents: Vec<(AgentId, Option<Verdict>)>,
        (from, until): (u64, u64),
    ) -> Result<Vec<Vec<Part>>, Refusal> {
        let steps = match &self.history {
            Some(history) => {
                let ids: Vec<_> = agents.iter().map(|(agent, _)| agent.clone()).collect();
                self.read(history, move |history, gone| history.steps(&ids, from, gone)).await?
            }
            None => self.latest_steps(from),
        };
        let of_agent = |(agent, present): (AgentId, Option<Verdict>)| {
            let of_agent = steps.of.get(&agent).map_or(&[][..], Vec::as_slice);
            parts(of_agent, present, steps.kept_since, (from, until))
        };
        Ok(agents.into_iter().map(of_agent).collect())
    }

    /// The uptime of an agent, by the names of the windows.
    pub(super) async fn uptimes(
        &self,
        agent: AgentId,
        present: Option<Verdict>,
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
        present: Vec<(AgentId, Verdict)>,
        (from, until): (u64, u64),
    ) -> Result<Option<Uptime>, Refusal> {
        let mut steps = match &self.history {
            Some(history) => {
                self.read(history, move |history, gone| history.steps_of_name(&name, from, gone)).await?
            }
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
                let over = HistoryStep { was: None, became: Verdict::Gone, ..*last };
                let is_well = matches!(last.became, Verdict::Up(_));
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
                was: change.from,
                became: change.to,
            });
        }
        steps
    }

    /// Reads the history on another thread, a few at once. When this future is dropped, because who has asked is gone, the
    /// read is given up.
    async fn read<T: Send + 'static>(
        &self,
        history: &Arc<HistoryReader>,
        read: impl FnOnce(&HistoryReader, &CancellationToken) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = Arc::clone(&self.disk).acquire_owned().await.map_err(|_| Refusal::Stopping)?;
        let (history, gone) = (Arc::clone(history), CancellationToken::new());
        let _asker = gone.clone().drop_guard();
        let read = spawn_blocking(move || {
            let _turn = turn;
            read(&history, &gone)
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
            "to": row.became.as_str(),
            "status": row.status.as_str(),
            "cause": row.cause,
            "silence_ms": row.silence_ms,
            "payload": row.payload,
            "beats": row.beats,
            "problem": Problem::of(row.became).map(Problem::as_str),
        });
        let optional = [
            ("twin", (agent.twin.number() > 1).then(|| json!(agent.twin.number()))),
            ("from", row.was.map(|was| json!(was.as_str()))),
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

/// Whether a row and a change in memory are the same.
fn is_same(row: &HistoryRow, change: &Transition, at: WallTime) -> bool {
    row.at == at
        && row.agent == change.agent
        && row.became.index() == change.to.index()
        && row.cause == change.cause.as_str()
}
