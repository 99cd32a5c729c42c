//! What users ask of the server about agents, in the audit log.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::domain::AgentPattern;
use crate::domain::tracker::AgentId;
use crate::services::audit::AuditWriter;
use crate::services::maintenance::options::Reason;

/// The most agents of one request that have a record of their own in the audit log.
const MAX_RECORDED: usize = 256;

/// The events of one kind of request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Events {
    /// Before anything is done: the record is on the disk, or nothing is done.
    pub(super) requested: &'static str,
    /// What was done to one agent.
    pub(super) agent: &'static str,
    /// After all of it.
    pub(super) done: &'static str,
}

/// The writer of those records. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    pub(super) audit: AuditWriter,
    /// The name of this host.
    pub(super) host: Arc<str>,
}

/// A request that is on the disk.
#[derive(Debug)]
pub(super) struct RecordedRequest {
    events: Events,
    /// What each record of it says.
    fields: Map<String, Value>,
}

impl Trail {
    /// The warning of an answer where the last record is not on the disk.
    pub(super) const INCOMPLETE: &str =
        "the audit log has the request, and not all of what came of it; the server's log says why";

    /// Records a request, and returns it once it is on the disk; `None` if it is not.
    pub(super) async fn begin(
        &self,
        events: Events,
        who: &AgentPattern,
        reason: Option<&Reason>,
        uid: u32,
    ) -> Option<RecordedRequest> {
        let mut fields = Map::new();
        fields.insert("pattern".to_owned(), json!(who.as_str()));
        fields.insert("uid".to_owned(), json!(uid));
        fields.insert("reason".to_owned(), json!(reason.map(Reason::as_str)));
        let is_recorded = self.audit.record(events.requested, fields.clone()).await;
        is_recorded.then_some(RecordedRequest { events, fields })
    }

    /// Records what was done to so many agents, of which the first few are given, and `more`. Returns whether
    /// that is on the disk.
    pub(super) async fn end<'a>(
        &self,
        request: RecordedRequest,
        agents: u64,
        first: impl Iterator<Item = &'a AgentId>,
        more: Option<(&str, u64)>,
    ) -> bool {
        let RecordedRequest { events, fields } = request;
        for agent in first.take(MAX_RECORDED) {
            self.audit.note(events.agent, self.of_agent(fields.clone(), agent), false);
        }
        let mut done = fields;
        done.insert("agents".to_owned(), json!(agents));
        if let Some((key, count)) = more {
            done.insert(key.to_owned(), json!(count));
        }
        self.audit.record(events.done, done).await
    }

    fn of_agent(&self, mut fields: Map<String, Value>, agent: &AgentId) -> Map<String, Value> {
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("agent", json!(*agent.name));
        put("pid", json!(agent.shown_pid().unwrap_or(0)));
        put("host", json!(agent.origin.host(&self.host)));
        put("transport", json!(agent.origin.transport().as_str()));
        put("twin", json!(agent.twin.number()));
        fields
    }
}

/// The most agents that a request keeps for its records.
pub(super) const fn room_for(kept: usize) -> usize {
    MAX_RECORDED.saturating_sub(kept)
}
