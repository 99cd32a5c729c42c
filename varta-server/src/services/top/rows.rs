//! What the API says, as it is shown.

use serde::Deserialize;
use serde_json::Value;

/// A page of the list of agents.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct List {
    pub(super) total: u64,
    pub(super) matched: u64,
    /// How many of all, by state.
    pub(super) counts: serde_json::Map<String, Value>,
    pub(super) agents: Vec<Row>,
}

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) pid: Option<u32>,
    pub(super) transport: Option<String>,
    pub(super) state: String,
    pub(super) status: String,
    pub(super) problem: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) since: Option<String>,
    pub(super) silence_ms: Option<u64>,
    pub(super) stall_after_ms: u64,
    pub(super) payload: u64,
    pub(super) beats: u64,
    pub(super) lost: u64,
    pub(super) unit: Option<String>,
    pub(super) paused: bool,
    pub(super) summary: Option<String>,
}

/// One agent with its last changes.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Detail {
    pub(super) agent: Row,
    pub(super) transitions: Vec<Change>,
}

/// A change of an agent's verdict.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Change {
    pub(super) at: String,
    pub(super) summary: String,
}
