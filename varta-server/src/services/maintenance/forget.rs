//! Agents that a user asks the server to forget.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::domain::AgentPattern;
use crate::domain::tracker::{AgentId, NameMatches};
use crate::engine::query::{ForgetSlice, Query};
use crate::services::audit::AuditWriter;
use crate::services::maintenance::options::Reason;
use crate::services::maintenance::pauses::TARGET;
use crate::services::maintenance::protocol::{Matches, Response, ResponseStatus};

/// The most forgotten agents of one request that have a record of their own in the audit log.
const MAX_RECORDED: usize = 256;

/// What forgets agents, and records that.
#[derive(Debug)]
pub(super) struct ForgetService {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) audit: AuditWriter,
    /// The name of this host.
    pub(super) host: Arc<str>,
}

/// Who was forgotten by a request, and who was not.
#[derive(Debug, Default)]
struct Outcome {
    agents: u64,
    /// The first of them.
    forgotten: Vec<AgentId>,
    living: u64,
    /// The first few of those that live.
    living_named: Vec<String>,
}

impl ForgetService {
    /// Forgets the selected agents that do not live. With an audit log the request is on the disk before.
    pub(super) async fn forget(&self, who: AgentPattern, reason: Option<Reason>, uid: u32) -> Response {
        let request = self.fields(&who, reason.as_ref(), uid);
        if !self.audit.record("forget_requested", request.clone()).await {
            return Response::refused(
                "nobody is forgotten: the audit log does not take the record of that; the server's log says why",
            );
        }
        let Some(outcome) = self.carry_out(&who).await else {
            return Response::refused("the server ends");
        };
        let text = who.as_str().escape_debug();
        let why = reason.as_ref().map_or("no reason was given", Reason::as_str);
        let Outcome { agents, ref forgotten, living, ref living_named } = outcome;
        for agent in forgotten {
            self.audit.note("forgotten", self.record_of(agent, &request), false);
        }
        let mut done = request;
        done.insert("agents".to_owned(), json!(agents));
        done.insert("living".to_owned(), json!(living));
        let is_recorded = self.audit.record("forget_done", done).await;
        let living = (living > 0).then(|| Matches { agents: living, names: living_named.clone() });
        if agents == 0 {
            let Some(living) = living else {
                return Response::refused(format!(
                    "nobody has the name or pid {text}; `varta_agent_up` in the metrics has all agents"
                ));
            };
            return Response::refused(format!(
                "{} {}, and the next beat of a living agent would bring it back: end it first, or pause it",
                living.shown(),
                if living.agents == 1 { "lives" } else { "live" }
            ));
        }
        let forgotten =
            Matches { agents, names: forgotten.iter().take(NameMatches::MAX_NAMES).map(shown).collect() };
        tracing::info!(
            target: TARGET,
            pattern = %text,
            uid,
            reason = why,
            agents,
            "forgotten, by uid {uid}: {}: {why}",
            forgotten.shown()
        );
        Response {
            outcome: ResponseStatus::Ok,
            word: (!is_recorded).then(|| {
                "the audit log has the request, and not all of what came of it; the server's log says why"
                    .to_owned()
            }),
            forgotten: Some(forgotten),
            living,
            ..Response::refused("")
        }
    }

    /// Has the tracker forget them, slot by slot. `None` when the server stops.
    async fn carry_out(&self, who: &AgentPattern) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        let mut next = Some(0);
        while let Some(from) = next {
            let (answer, answered) = oneshot::channel();
            self.queries.send(Query::Forget { who: who.clone(), from, answer }).await.ok()?;
            let ForgetSlice { forgotten, living, next: further } = answered.await.ok()?;
            next = further;
            outcome.agents += forgotten.len() as u64;
            outcome.living += living.len() as u64;
            let room = MAX_RECORDED.saturating_sub(outcome.forgotten.len());
            outcome.forgotten.extend(forgotten.into_iter().take(room));
            let room = NameMatches::MAX_NAMES.saturating_sub(outcome.living_named.len());
            outcome.living_named.extend(living.iter().take(room).map(shown));
        }
        Some(outcome)
    }

    /// What every record of a request says.
    fn fields(&self, who: &AgentPattern, reason: Option<&Reason>, uid: u32) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("pattern".to_owned(), json!(who.as_str()));
        fields.insert("uid".to_owned(), json!(uid));
        fields.insert("reason".to_owned(), json!(reason.map(Reason::as_str)));
        fields
    }

    /// The record of one agent.
    fn record_of(&self, agent: &AgentId, request: &Map<String, Value>) -> Map<String, Value> {
        let mut fields = request.clone();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("agent", json!(*agent.name));
        put("pid", json!(agent.pid));
        put("host", json!(agent.origin.host(&self.host)));
        put("transport", json!(agent.origin.transport().as_str()));
        put("twin", json!(agent.twin.number()));
        fields
    }
}

/// An agent by name and pid; one that has not come has no pid.
fn shown(agent: &AgentId) -> String {
    if agent.pid == 0 { agent.name.to_string() } else { format!("{}[{}]", agent.name, agent.pid) }
}
