//! What the services do about agents: incidents, the alerts that fire, and the actions of recovery.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::base::Glob;
use crate::base::clock::wall_now;
use crate::base::time::WallTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::{AgentId, Problem};
use crate::services::alerts::FiringAlert;
use crate::services::api::incidents::Incident;
use crate::services::api::parameters::Parameters;
use crate::services::api::shared::{Api, Refusal, answer};
use crate::services::recovery::{Entry, Journal};

/// The most entries of a page.
const MAX_PAGE: usize = 500;
/// Those of a page of which nothing else is said.
const PAGE: usize = 100;
/// The entries of recovery that are shown of one agent.
const OF_AGENT: usize = 50;
const CURSOR: &str = "one that this server has given";

/// The paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/recoveries", get(recoveries))
}

/// Which agents.
#[derive(Debug)]
struct Agents {
    name: Option<Glob>,
    /// The id of one.
    id: Option<String>,
}

impl Agents {
    fn parse(parameters: &mut Parameters) -> Result<Self, String> {
        Ok(Agents { name: parameters.pattern("name")?, id: parameters.text("agent")? })
    }

    fn are_all(&self) -> bool {
        self.name.is_none() && self.id.is_none()
    }

    fn select(&self, agent: &AgentId, host: &str) -> bool {
        self.name.as_ref().is_none_or(|name| name.matches(&agent.name))
            && self.id.as_ref().is_none_or(|id| agent.instance(host) == *id)
    }
}

/// Answers with what `make` makes, unless who asks has it already. `changes` is how often it has changed, and `what` the
/// query.
fn tagged(
    api: &Api,
    headers: &HeaderMap,
    changes: u64,
    what: Option<&str>,
    make: impl FnOnce() -> Value,
) -> Response {
    let revision = api.changes.revision();
    let mut hash = DefaultHasher::new();
    what.hash(&mut hash);
    let tag = format!("W/\"{:x}-{changes}-{:x}\"", revision.instance, hash.finish());
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str()) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    ([(ETAG, tag)], answer(api.head(revision), make())).into_response()
}

async fn incidents(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let mut parameters = Parameters::of(query.as_deref())?;
    let states = parameters.words("state", &["open", "ended"])?;
    let agents = Agents::parse(&mut parameters)?;
    let limit = parameters.number("limit", 1..=MAX_PAGE, PAGE)?;
    let cursor: Option<Place<u64>> = parameters.value("cursor", CURSOR)?;
    parameters.end()?;
    if api.incidents.is_unsure() {
        let directory = api.directory().await?;
        let ill = directory.agents.iter().filter(|listed| listed.problem.is_some());
        let ill: HashSet<_> = ill.map(|listed| AgentKey::of(&listed.record.agent)).collect();
        api.incidents.review(&ill, directory.revision.number, WallTime::from(wall_now()));
    }
    let (firing, changed) = api.board.firing();
    let changes = changed.wrapping_add(api.incidents.changes());
    Ok(tagged(&api, &headers, changes, query.as_deref(), || {
        let is_of_state =
            |has_ended: bool| states.as_ref().is_none_or(|states| states.contains(&usize::from(has_ended)));
        let is_wanted = |incident: &Incident| {
            is_of_state(incident.ended.is_some())
                && (agents.are_all() || incident.has(|agent| agents.select(agent, &api.host)))
        };
        let kept = api.incidents.newest_first(|_| true);
        let mut all: Vec<_> = kept
            .iter()
            .filter(|incident| is_wanted(incident))
            .map(|incident| (incident.place(), incident.to_json(&api.host)))
            .collect();
        // What was before this server's start is known by its alert only.
        let earlier = firing.iter().filter_map(FiringAlert::incident).filter(|alert| {
            !kept.iter().any(|incident| incident.is_of(alert.began, alert.host, alert.state, &api.host))
        });
        if is_of_state(false) && agents.are_all() {
            all.extend(earlier.map(|alert| {
                let shown = json!({
                    "number": null, "host": alert.host, "state": alert.state, "began": alert.began.to_string(),
                    "ended": null, "agents": alert.agents, "in_alarm": alert.in_alarm, "causes": {}, "first": null,
                    "members": [],
                });
                (Place(alert.began.as_millis(), 0), shown)
            }));
        }
        all.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        page("incidents", all, cursor, limit, |shown| shown)
    }))
}

async fn alerts(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let mut parameters = Parameters::of(query.as_deref())?;
    let problems = parameters.words("problem", &Problem::ALL.map(Problem::as_str))?;
    let acknowledged = parameters.words("acknowledged", &["no", "yes"])?;
    let agents = Agents::parse(&mut parameters)?;
    let limit = parameters.number("limit", 1..=MAX_PAGE, PAGE)?;
    let cursor: Option<Place<u128>> = parameters.value("cursor", CURSOR)?;
    parameters.end()?;
    let (firing, changes) = api.board.firing();
    let is_wanted = |alert: &FiringAlert| {
        problems
            .as_ref()
            .is_none_or(|wanted| alert.problem().is_some_and(|problem| wanted.contains(&(problem as usize))))
            && acknowledged
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&usize::from(alert.is_acknowledged())))
            && agents.name.as_ref().is_none_or(|name| alert.agent_name().is_some_and(|of| name.matches(of)))
            && agents.id.as_ref().is_none_or(|id| alert.agent().as_ref() == Some(id))
    };
    Ok(tagged(&api, &headers, changes, query.as_deref(), || {
        let place = |alert: FiringAlert| {
            let (since, fingerprint) = alert.key();
            (Place(since, u128::from_be_bytes(fingerprint)), alert)
        };
        let all: Vec<_> = firing.into_iter().filter(is_wanted).map(place).collect();
        let mut shown = page("alerts", all, cursor, limit, |alert| api.board.to_json(&alert));
        shown["receivers"] = api.board.receivers().into();
        shown
    }))
}

async fn recoveries(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let mut parameters = Parameters::of(query.as_deref())?;
    let outcomes = parameters.words("outcome", &Journal::OUTCOMES)?;
    let agents = Agents::parse(&mut parameters)?;
    let limit = parameters.number("limit", 1..=MAX_PAGE, PAGE)?;
    let before = parameters.value("cursor", CURSOR)?.unwrap_or(u64::MAX);
    parameters.end()?;
    Ok(tagged(&api, &headers, api.journal.changes(), query.as_deref(), || {
        let is_wanted = |entry: &Entry| {
            agents.select(&entry.agent, &api.host)
                && outcomes.as_ref().is_none_or(|wanted| {
                    wanted.iter().any(|place| Journal::OUTCOMES[*place] == entry.outcome)
                })
        };
        let mut found = api.journal.newest(before, limit + 1, is_wanted);
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|last| last.number.to_string());
        let found: Vec<_> = found.iter().map(|entry| recovery(entry, &api.host)).collect();
        json!({ "recoveries": found, "next": next })
    }))
}

/// The latest of what recovery did about an agent.
pub(super) fn recoveries_of(api: &Api, agent: &AgentId) -> Vec<Value> {
    let found = api.journal.newest(u64::MAX, OF_AGENT, |entry| entry.agent == *agent);
    found.iter().map(|entry| recovery(entry, &api.host)).collect()
}

/// The alerts that fire about an agent.
pub(super) fn alerts_of(api: &Api, id: &str) -> Vec<Value> {
    let (firing, _) = api.board.firing();
    let of = firing.iter().filter(|alert| alert.agent().as_deref() == Some(id));
    of.map(|alert| api.board.to_json(alert)).collect()
}

fn recovery(entry: &Entry, host: &str) -> Value {
    let Entry { number, agent, state, cause, action, outcome, reason, began, ended, exit_code, exit_signal } =
        entry;
    json!({
        "number": number, "id": agent.instance(host), "name": &*agent.name, "state": state, "cause": cause,
        "action": action.as_ref().map(|action| &action.kind), "text": action.as_ref().map(|action| &action.text),
        "rule": action.as_ref().map(|action| &action.rule), "step": action.as_ref().map(|action| action.step),
        "steps": action.as_ref().map(|action| action.steps),
        "attempt": action.as_ref().map(|action| action.attempt), "outcome": outcome, "reason": reason,
        "began": began.to_string(), "ended": ended.map(|ended| ended.to_string()), "exit_code": exit_code,
        "exit_signal": exit_signal,
    })
}

/// The place of something in a list with the newest first: its time in milliseconds of Unix time, and a number that no
/// other of that time has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<N>(u64, N);

impl<N: std::fmt::LowerHex> std::fmt::Display for Place<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:x}", self.0, self.1)
    }
}

macro_rules! read_place {
    ($number:ty) => {
        impl std::str::FromStr for Place<$number> {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                let (time, number) = text.split_once('-').ok_or(())?;
                let time = u64::from_str_radix(time, 16).map_err(drop)?;
                Ok(Place(time, <$number>::from_str_radix(number, 16).map_err(drop)?))
            }
        }
    };
}

read_place!(u64);
read_place!(u128);

impl Incident {
    fn place(&self) -> Place<u64> {
        Place(self.began.as_millis(), self.number)
    }
}

/// The part of a list behind a place, and where the next one begins.
fn page<T, N: Copy + Ord + std::fmt::LowerHex>(
    name: &str,
    all: Vec<(Place<N>, T)>,
    cursor: Option<Place<N>>,
    limit: usize,
    show: impl Fn(T) -> Value,
) -> Value {
    let matched = all.len();
    let mut behind =
        all.into_iter().filter(|(place, _)| cursor.is_none_or(|cursor| *place < cursor)).peekable();
    let (mut shown, mut last) = (Vec::new(), None);
    while shown.len() < limit
        && let Some((place, item)) = behind.next()
    {
        shown.push(show(item));
        last = Some(place);
    }
    let next = last.filter(|_| behind.peek().is_some()).map(|last| last.to_string());
    json!({ "matched": matched, name: shown, "next": next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(page: &Value) -> Vec<u64> {
        page["all"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
    }

    #[test]
    fn the_pages_of_a_list_have_each_entry_once_though_newer_ones_come_meanwhile() {
        // Two of one time.
        let mut all: Vec<_> =
            [(9, 1), (7, 3), (7, 2), (5, 1), (3, 8)].map(|(at, number)| (Place(at, number), number)).into();
        let first = page("all", all.clone(), None, 2, |number: u64| number.into());
        assert_eq!((numbers(&first), &first["matched"]), (vec![1, 3], &json!(5)));
        all.insert(0, (Place(11, 1), 4));
        let cursor = first["next"].as_str().unwrap().parse().unwrap();
        let second = page("all", all.clone(), Some(cursor), 2, |number: u64| number.into());
        assert_eq!(numbers(&second), [2, 1]);
        let cursor = second["next"].as_str().unwrap().parse().unwrap();
        let last = page("all", all, Some(cursor), 2, |number: u64| number.into());
        assert_eq!((numbers(&last), &last["next"]), (vec![8], &Value::Null));
    }

    #[test]
    fn a_cursor_is_read_as_it_is_written_and_nothing_else_is_one() {
        let place = Place(1_764_560_000_123, u128::MAX);
        assert_eq!(place.to_string().parse(), Ok(place));
        for senseless in ["", "-", "1", "1-", "x-1", "1-1-1", "1-100000000000000000000000000000000"] {
            assert_eq!(senseless.parse::<Place<u128>>(), Err(()), "{senseless}");
        }
    }
}
