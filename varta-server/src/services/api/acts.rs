//! What may be asked of the server besides to read: pauses, acknowledgements, and to forget agents.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::options::duration::parse_duration;
use crate::services::api::parameters::Parameters;
use crate::services::api::shared::{Api, Refusal, answer, json_text};
use crate::services::http::Caller;
use crate::services::maintenance::desk::{DoneToAgents, NotDone, PauseAnswer};

/// The answer, or why there is none.
type Answer = Result<Response, Refusal>;
type Shared = State<Arc<Api>>;

/// The paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/pauses", get(pauses).post(pause).delete(resume))
        .route("/api/v1/acks", post(acknowledge).delete(take_back))
        .route("/api/v1/forget", post(forget))
}

async fn pauses(State(api): Shared, RawQuery(query): RawQuery) -> Answer {
    Parameters::of(query.as_deref())?.end()?;
    let pauses = api.desk.pauses().await;
    Ok(answer(api.head(api.changes.revision()), json!({ "pauses": pauses })))
}

/// What is to be paused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseRequest {
    pattern: String,
    #[serde(rename = "for")]
    length: String,
    reason: Option<String>,
}

/// Whose alarms are to be acknowledged, or who is to be forgotten.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoRequest {
    who: String,
    reason: Option<String>,
}

impl WhoRequest {
    fn parse(body: &Bytes) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map_err(|fault| format!("the body names no agents: {fault}").into())
    }
}

async fn pause(State(api): Shared, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    check_act(caller)?;
    let PauseRequest { pattern, length, reason } =
        serde_json::from_slice(&body).map_err(|fault| format!("the body is no pause: {fault}"))?;
    let length = parse_duration(&length).map_err(|fault| format!("for: {fault}"))?;
    let done = api.desk.pause(&pattern, length, reason.as_deref()).await.map_err(refusal)?;
    log_act(caller, "paused", &pattern);
    let PauseAnswer { pause, warning, agents, names } = done;
    let said = json!({ "pause": pause, "warning": warning, "matches": { "agents": agents, "names": names } });
    Ok((StatusCode::CREATED, json_text(said.to_string())).into_response())
}

async fn resume(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    check_act(caller)?;
    let pattern = only(query.as_deref(), "pattern")?;
    let PauseAnswer { pause, warning, .. } = api.desk.resume(&pattern).await.map_err(refusal)?;
    log_act(caller, "resumed", &pattern);
    Ok(said(&json!({ "pause": pause, "warning": warning })))
}

async fn acknowledge(State(api): Shared, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    check_act(caller)?;
    let WhoRequest { who, reason } = WhoRequest::parse(&body)?;
    let done = api.desk.acknowledge(&who, reason.as_deref()).await.map_err(refusal)?;
    log_act(caller, "acknowledged", &who);
    Ok(said(&json!({ "acknowledged": done.agents, "warning": done.warning })))
}

async fn take_back(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    check_act(caller)?;
    let who = only(query.as_deref(), "who")?;
    let done = api.desk.take_back(&who).await.map_err(refusal)?;
    log_act(caller, "unacknowledged", &who);
    Ok(said(&json!({ "acknowledged": done.agents, "warning": done.warning })))
}

async fn forget(State(api): Shared, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    check_act(caller)?;
    let WhoRequest { who, reason } = WhoRequest::parse(&body)?;
    let DoneToAgents { agents, living, warning } =
        api.desk.forget(&who, reason.as_deref()).await.map_err(refusal)?;
    log_act(caller, "forgotten", &who);
    Ok(said(&json!({ "forgotten": agents, "living": living, "warning": warning })))
}

fn said(what: &Value) -> Response {
    json_text(what.to_string())
}

/// The only parameter of a request.
fn only(query: Option<&str>, name: &str) -> Result<String, String> {
    let mut parameters = Parameters::of(query)?;
    let value = parameters.text(name)?.ok_or_else(|| format!("{name}: is missing"))?;
    parameters.end()?;
    Ok(value)
}

/// Refuses who may not act.
fn check_act(caller: Caller) -> Result<(), Refusal> {
    if caller.may_act {
        return Ok(());
    }
    Err(if caller.has_credentials { Refusal::Forbidden } else { Refusal::Unauthenticated })
}

fn refusal(fault: NotDone) -> Refusal {
    match fault {
        NotDone::Malformed(fault) => Refusal::Malformed(fault),
        NotDone::Refused(why) => Refusal::Conflict(why),
    }
}

/// Logs from where something was done.
fn log_act(caller: Caller, done: &str, pattern: &str) {
    let from = caller.address.map_or_else(|| "the control socket".to_owned(), |address| address.to_string());
    tracing::info!(target: "varta::api", from, "{} was {done} by HTTP from {from}", pattern.escape_debug());
}
