//! What each path of the API is answered with.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::base::clock::wall_now;
use crate::base::time::WallTime;
use crate::domain::tracker::Verdict;
use crate::services::api::acts;
use crate::services::api::badge::{self, Badge};
use crate::services::api::changes::{Revision, record};
use crate::services::api::directory::{Directory, Listed};
use crate::services::api::doings;
use crate::services::api::list::{Page, Selection};
use crate::services::api::parameters::Parameters;
use crate::services::api::row::{Story, row};
use crate::services::api::shared::{Api, Refusal, answer, json_text};
use crate::services::api::stream::{self, StreamFilter};
use crate::services::api::uptime::Uptime;
use crate::services::http::{EVENT_STREAM, problem};
use crate::services::state::HistoryFilter;

/// The form of all answers, as OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../../openapi.json");
/// How long a request waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of the body of a request.
const MAX_BODY_LEN: usize = 8 << 10;
/// The most changes of a page.
const MAX_CHANGES: usize = 500;
/// The most alarms of an answer.
const MAX_ALARMS: usize = 500;
/// The changes that are shown of one agent.
const CHANGES_OF_AGENT: usize = 100;
/// The most agents of whose day is asked at once.
const MAX_DAYS: usize = 60;
const DAY_MS: u64 = 86_400_000;
const WEEK_MS: u64 = 7 * DAY_MS;

/// The answer, or why there is none.
type Answer = Result<Response, Refusal>;
type Shared = State<Arc<Api>>;

/// All paths.
pub(super) fn routes(api: Arc<Api>) -> Router {
    let reads = Router::new()
        .route("/api/v1/agents", get(agents))
        .route("/api/v1/agents/{id}", get(agent))
        .route("/api/v1/transitions", get(transitions))
        .route("/api/v1/days", get(days))
        .route("/api/v1/alarms", get(alarms))
        .route("/api/v1/status", get(status))
        .route("/badge/{name}/health.svg", get(health_svg))
        .route("/badge/{name}/health.json", get(health_json))
        .route("/badge/{name}/uptime-7d.svg", get(uptime_svg))
        .merge(acts::routes())
        .merge(doings::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&api), in_turn));
    Router::new()
        .route("/api/v1/stream", get(stream))
        .merge(reads)
        .route("/api/{*path}", get(nothing).post(nothing).delete(nothing).put(nothing).patch(nothing))
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_LEN))
        .with_state(api)
}

/// What may be served to everybody: the description of the API.
pub(super) fn open_routes() -> Router {
    Router::new().route("/api/v1/openapi.json", get(|| async { json_text(DESCRIPTION.to_owned()) }))
}

async fn nothing() -> Refusal {
    Refusal::Unknown("there is nothing at this path; docs/API.md has those that there are".to_owned())
}

async fn no_such_method() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
}

/// Answers a request when few enough others are being answered. The place is kept until the answer is made.
async fn in_turn(State(api): Shared, request: axum::extract::Request, next: middleware::Next) -> Response {
    match timeout(TURN_WITHIN, Arc::clone(&api.reads).acquire_owned()).await {
        Ok(Ok(_turn)) => next.run(request).await,
        Ok(Err(_)) => Refusal::Stopping.into_response(),
        Err(_) => Refusal::Busy.into_response(),
    }
}

async fn agents(State(api): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut parameters = Parameters::of(query.as_deref())?;
    let (selection, page) = (Selection::parse(&mut parameters)?, Page::parse(&mut parameters)?);
    parameters.end()?;
    let directory = api.directory().await?;
    let mut hash = DefaultHasher::new();
    (selection.key(), page.key()).hash(&mut hash);
    let tag = format!("W/\"{}-{}-{:x}\"", directory.revision, directory.number, hash.finish());
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    let found = selection.find(&api, &directory, page).await;
    let rows: Vec<_> =
        found.agents.iter().map(|place| row(&api, &directory, &directory.agents[*place as usize])).collect();
    let counts: HashMap<_, _> = Verdict::NAMES.into_iter().zip(directory.counts).collect();
    let rest = json!({
        "total": directory.agents.len(), "matched": found.matched, "counts": counts, "offset": found.offset,
        "next": found.next, "agents": rows,
    });
    Ok(([(ETAG, tag)], answer(api.head(directory.revision), rest)).into_response())
}

/// The agent with this id.
fn by_id<'d>(api: &Api, directory: &'d Directory, id: &str) -> Result<&'d Listed, Refusal> {
    let is_it = |listed: &&Listed| {
        let agent = &listed.record.agent;
        // Most are told apart without a text being made for each.
        id.starts_with(&*agent.name) || agent.name.contains(char::is_control)
    };
    let all = directory.agents.iter().filter(is_it);
    let found = all.into_iter().find(|listed| listed.record.agent.instance(&api.host) == id);
    found.ok_or_else(|| Refusal::Unknown(format!("no agent is known by the id `{}`", id.escape_debug())))
}

async fn agent(State(api): Shared, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    Parameters::of(query.as_deref())?.end()?;
    let directory = api.directory().await?;
    let listed = by_id(&api, &directory, &id)?;
    let (agent, verdict) = (listed.record.agent.clone(), listed.record.verdict);
    let now = WallTime::from(wall_now()).as_millis();
    let uptime = api.uptimes(agent.clone(), Some(verdict), now).await?;
    let filter =
        HistoryFilter { agent: Some(agent.clone()), most: CHANGES_OF_AGENT, ..HistoryFilter::default() };
    let past = api.past(filter).await?;
    let change = Story::of(&api, listed).map(|story| record(&story.change, story.at, &api.host));
    let pauses: Vec<_> = api.desk.pauses_of(&agent.name).await;
    let rest = json!({
        "agent": row(&api, &directory, listed), "change": change, "transitions": past.changes, "uptime": uptime,
        "pauses": pauses, "recoveries": doings::recoveries_of(&api, &agent), "alerts": doings::alerts_of(&api, &id),
    });
    Ok(answer(api.head(directory.revision), rest))
}

async fn transitions(State(api): Shared, RawQuery(query): RawQuery) -> Answer {
    let mut parameters = Parameters::of(query.as_deref())?;
    let state = parameters.words("state", &Verdict::NAMES)?.unwrap_or_default();
    let state = match state[..] {
        [] => None,
        [state] => Some(Verdict::NAMES[state]),
        _ => return Err("state: is one".to_owned().into()),
    };
    let mut moment = |name: &str| match parameters.text(name)? {
        None => Ok(None),
        Some(text) => match text.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(Some(at.as_millisecond())),
            Err(fault) => Err(format!("{name}: `{}`: {fault}", text.escape_debug())),
        },
    };
    let (from, until) = (moment("from")?, moment("until")?);
    let id = parameters.text("agent")?;
    let mut filter = HistoryFilter {
        name: parameters.pattern("name")?,
        agent: None,
        cause: parameters.text("cause")?,
        state,
        from,
        until,
        before: parameters.value("cursor", "one that this server has given")?,
        most: parameters.number("limit", 1..=MAX_CHANGES, 100)?,
    };
    parameters.end()?;
    if let Some(id) = id {
        let directory = api.directory().await?;
        filter.agent = Some(by_id(&api, &directory, &id)?.record.agent.clone());
    }
    let past = api.past(filter).await?;
    let next = past.next.map(|next| next.to_string());
    let rest = json!({
        "source": past.source, "transitions": past.changes, "left_out": past.left_out, "next": next,
    });
    Ok(answer(api.head(api.changes.revision()), rest))
}

async fn days(State(api): Shared, RawQuery(query): RawQuery) -> Answer {
    let mut parameters = Parameters::of(query.as_deref())?;
    let ids = parameters.all("id");
    parameters.end()?;
    if ids.is_empty() || ids.len() > MAX_DAYS {
        return Err(format!("id: there are 1 to {MAX_DAYS}").into());
    }
    let directory = api.directory().await?;
    // Those that are not known any more have no day.
    let known: Vec<_> =
        ids.into_iter().filter_map(|id| Some((by_id(&api, &directory, &id).ok()?, id))).collect();
    let agents = known.iter().map(|(listed, _)| (listed.record.agent.clone(), Some(listed.record.verdict)));
    let until = WallTime::from(wall_now()).as_millis();
    let from = until.saturating_sub(DAY_MS);
    let all = api.parts(agents.collect(), (from, until)).await?;
    let day = |((_, id), parts): (&(&Listed, String), Vec<crate::services::api::uptime::Part>)| {
        let parts: Vec<_> =
            parts.iter().map(|part| json!({ "from_ms": part.from - from, "state": part.state })).collect();
        json!({ "id": id, "parts": parts })
    };
    let days: Vec<_> = known.iter().zip(all).map(day).collect();
    let begin = WallTime::default().after(Duration::from_millis(from)).to_string();
    Ok(answer(api.head(directory.revision), json!({ "from": begin, "days": days })))
}

async fn alarms(State(api): Shared, RawQuery(query): RawQuery) -> Answer {
    let mut parameters = Parameters::of(query.as_deref())?;
    let most = parameters.number("limit", 1..=MAX_ALARMS, 100)?;
    parameters.end()?;
    // What happens meanwhile may be in the answer already, and is told by the stream again.
    let revision = api.changes.revision();
    let (alarms, total) = api.desk.alarms(most).await.ok_or(Refusal::Stopping)?;
    Ok(answer(api.head(revision), json!({ "total": total, "alarms": alarms })))
}

async fn status(State(api): Shared, RawQuery(query): RawQuery) -> Answer {
    Parameters::of(query.as_deref())?.end()?;
    let revision = api.changes.revision();
    let status = api.desk.status().await.ok_or(Refusal::Stopping)?;
    Ok(answer(api.head(revision), status))
}

async fn stream(State(api): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut parameters = Parameters::of(query.as_deref())?;
    let filter = StreamFilter { name: parameters.pattern("name")?, agent: parameters.text("agent")? };
    let since = parameters.text("since")?;
    parameters.end()?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let since = last.map(str::to_owned).or(since);
    let parse = |text: String| {
        Revision::parse(&text)
            .ok_or_else(|| format!("since, Last-Event-ID: `{}` is no revision", text.escape_debug()))
    };
    let since = since.map(parse).transpose()?;
    let permit: OwnedSemaphorePermit =
        Arc::clone(&api.streams).try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let body: Body = stream::body(api, since, filter, permit);
    let head: [(HeaderName, &str); 2] = [(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, "no-store")];
    Ok((head, body).into_response())
}

/// The agents with this name: their verdicts, and what is wrong with the worst.
async fn badge_of(api: &Api, name: &str) -> Result<(Arc<Directory>, Vec<usize>), Refusal> {
    let directory = api.directory().await?;
    let is_it = |(_, listed): &(usize, &Listed)| *listed.record.agent.name == *name;
    let places = directory.agents.iter().enumerate().filter(is_it).map(|(place, _)| place).collect();
    Ok((directory, places))
}

async fn health(api: &Api, name: &str) -> Result<Badge, Refusal> {
    let (directory, places) = badge_of(api, name).await?;
    let all = places.iter().map(|place| {
        let listed = &directory.agents[*place];
        (listed.record.verdict, listed.problem)
    });
    Ok(badge::health(all))
}

async fn health_svg(State(api): Shared, Path(name): Path<String>) -> Answer {
    Ok(health(&api, &name).await?.svg(&name))
}

async fn health_json(State(api): Shared, Path(name): Path<String>) -> Answer {
    Ok(json_text(health(&api, &name).await?.shields(&name).to_string()))
}

async fn uptime_svg(State(api): Shared, Path(name): Path<String>) -> Answer {
    let (directory, places) = badge_of(&api, &name).await?;
    let present = places.iter().map(|place| {
        let record = &directory.agents[*place].record;
        (record.agent.clone(), record.verdict)
    });
    let until = WallTime::from(wall_now()).as_millis();
    let window = (until.saturating_sub(WEEK_MS), until);
    let uptime: Option<Uptime> = api.uptime_of_name(name.clone(), present.collect(), window).await?;
    Ok(badge::uptime(uptime).svg(&format!("{name} 7d")))
}
