//! An agent as the API shows it.

use std::sync::Arc;

use serde::Serialize;

use crate::base::time::{WallTime, millis};
use crate::domain::describe::describe;
use crate::domain::labels::Labels;
use crate::domain::tracker::{Problem, Transition};
use crate::services::alarms::Alarm;
use crate::services::api::changes::What;
use crate::services::api::directory::{Directory, Listed};
use crate::services::api::shared::Api;

/// The object of one agent.
#[derive(Debug, Serialize)]
pub(super) struct Row<'d> {
    id: String,
    name: &'d str,
    pid: Option<u32>,
    host: String,
    transport: Option<&'static str>,
    state: &'static str,
    status: &'static str,
    problem: Option<&'static str>,
    cause: Option<&'static str>,
    since: Option<String>,
    last_beat: Option<String>,
    silence_ms: Option<u64>,
    stall_after_ms: u64,
    payload: u32,
    beats: u64,
    lost: u64,
    stalls: u32,
    unit: Option<&'d str>,
    labels: &'d Labels,
    paused: bool,
    summary: Option<String>,
}

/// How an agent came to its verdict.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) change: Arc<Transition>,
    pub(super) at: WallTime,
}

impl Story {
    /// How an agent came to the verdict that the list has; `None` where that is not known.
    pub(super) fn of(api: &Api, listed: &Listed) -> Option<Self> {
        let agent = &listed.record.agent;
        if let Some(change) = api.changes.of_agent(agent)
            && let What::Verdict(change, at) = &change.what
            && change.to == listed.record.verdict
        {
            return Some(Story { change: Arc::clone(change), at: *at });
        }
        // Of an alarm whose change this server has not seen only the verdict is known.
        let Alarm { change, since, .. } = api.alarms.of_agent(agent)?;
        (change.to == listed.record.verdict).then_some(Story { change, at: since? })
    }
}

/// The object of an agent in a list.
pub(super) fn row<'d>(api: &Api, directory: &'d Directory, listed: &'d Listed) -> Row<'d> {
    let Listed { record, problem } = listed;
    let story = Story::of(api, listed);
    let agent = &record.agent;
    let silence = directory.silence(record);
    let last_beat =
        record.last_beat.map(|last| directory.clock.at(last).before(record.silent_before).to_string());
    Row {
        id: agent.instance(&api.host),
        name: &agent.name,
        pid: agent.shown_pid(),
        host: agent.origin.host(&api.host),
        transport: record.last_beat.map(|_| agent.origin.transport().as_str()),
        state: record.verdict.as_str(),
        status: record.last.status.as_str(),
        problem: problem.map(Problem::as_str),
        cause: story.as_ref().map(|story| story.change.cause.as_str()),
        since: story.as_ref().map(|story| story.at.to_string()),
        last_beat,
        silence_ms: silence.map(millis),
        stall_after_ms: millis(record.stall_after),
        payload: record.last.payload,
        beats: record.last.beats,
        lost: record.lost,
        stalls: record.stalls,
        unit: record.unit.as_deref(),
        labels: &record.labels,
        paused: api.is_paused(&agent.name),
        summary: story.filter(|_| problem.is_some()).map(|story| describe(&story.change)),
    }
}
