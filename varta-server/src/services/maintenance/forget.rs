//! Agents that a user asks the server to forget.

use tokio::sync::{mpsc, oneshot};

use crate::domain::AgentPattern;
use crate::domain::tracker::{AgentId, NameMatches};
use crate::engine::query::{ForgetSlice, Query};
use crate::services::maintenance::options::Reason;
use crate::services::maintenance::pauses::TARGET;
use crate::services::maintenance::protocol::{Matches, Response, ResponseStatus};
use crate::services::maintenance::trail::{Events, Trail, room_for};

const EVENTS: Events = Events { requested: "forget_requested", agent: "forgotten", done: "forget_done" };

/// What forgets agents, and records that.
#[derive(Debug)]
pub(super) struct ForgetService {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) trail: Trail,
}

/// Who was forgotten by a request, and who was not.
#[derive(Debug, Default)]
struct Outcome {
    agents: u64,
    /// The first of them.
    forgotten: Vec<AgentId>,
    living: u64,
    /// The first few of those that live.
    living_first: Vec<AgentId>,
}

impl ForgetService {
    /// Forgets the selected agents that do not live. With an audit log the request is on the disk before.
    pub(super) async fn forget(&self, who: AgentPattern, reason: Option<Reason>, uid: u32) -> Response {
        let Some(request) = self.trail.begin(EVENTS, &who, reason.as_ref(), uid).await else {
            return Response::refused(
                "nobody is forgotten: the audit log does not take the record of that; the server's log says why",
            );
        };
        let Some(outcome) = self.carry_out(&who).await else {
            return Response::refused("the server ends");
        };
        let text = who.as_str().escape_debug();
        let Outcome { agents, ref forgotten, living, ref living_first } = outcome;
        let is_recorded = self.trail.end(request, agents, forgotten.iter(), Some(("living", living))).await;
        let living = (living > 0).then(|| Matches::of_agents(living, living_first));
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
        let forgotten = Matches::of_agents(agents, forgotten);
        let why = reason.as_ref().map_or("no reason was given", Reason::as_str);
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
            word: (!is_recorded).then(|| Trail::INCOMPLETE.to_owned()),
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
            outcome.forgotten.extend(forgotten.into_iter().take(room_for(outcome.forgotten.len())));
            let room = NameMatches::MAX_NAMES.saturating_sub(outcome.living_first.len());
            outcome.living_first.extend(living.into_iter().take(room));
        }
        Some(outcome)
    }
}
