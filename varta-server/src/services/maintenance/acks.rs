//! Alarms that a user acknowledges: nothing more is sent about them until the state of their agents changes.
//!
//! The alert service keeps them, as they are part of its state. This end finds the agents that are meant,
//! records the request, and hands it over.

use std::cmp::Ordering;
use std::collections::HashSet;

use tokio::sync::{mpsc, oneshot};

use crate::base::clock::wall_now;
use crate::base::time::WallTime;
use crate::domain::AgentPattern;
use crate::domain::tracker::{AgentId, Transition, Verdict};
use crate::engine::query::{Alarms, Query};
use crate::services::maintenance::options::Reason;
use crate::services::maintenance::pauses::TARGET;
use crate::services::maintenance::protocol::{Matches, Response, ResponseStatus};
use crate::services::maintenance::trail::{Events, Trail};

/// The most alarms that are acknowledged at a time.
pub(crate) const MAX_ACKS: usize = 1_024;
/// The capacity of the queue of requests: as many as there are connections.
pub(super) const QUEUE: usize = 16;

const ACK: Events = Events { requested: "ack_requested", agent: "acknowledged", done: "ack_done" };
const UNACK: Events = Events { requested: "unack_requested", agent: "unacknowledged", done: "unack_done" };
const NOT_RECORDED: &str =
    "nothing is done: the audit log does not take the record of that; the server's log says why";
const NO_RECEIVER: &str = "this server sends no alerts, so there is nothing to acknowledge; see --alertmanager, --webhook and --mail-relay";

/// A request to the alert service.
#[derive(Debug)]
pub(crate) struct AckRequest {
    pub(crate) action: AckAction,
    pub(crate) answer: oneshot::Sender<AckOutcome>,
}

/// What a user asks for.
#[derive(Debug)]
pub(crate) enum AckAction {
    /// Acknowledges the alarms of these agents, as the tracker has them.
    Acknowledge { found: Vec<Transition>, by: AckedBy },
    /// Ends the acknowledgements of these agents.
    TakeBack(AgentPattern),
    /// Lists the agents whose alarms are acknowledged.
    List,
}

/// Who acknowledges an alarm, why and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AckedBy {
    pub(crate) uid: u32,
    pub(crate) reason: Option<Reason>,
    pub(crate) at: WallTime,
}

/// What the alert service has done.
#[derive(Debug, Default)]
pub(crate) struct AckOutcome {
    /// The agents whose acknowledgement has begun or ended, or that were listed.
    pub(crate) agents: Vec<AgentId>,
    /// Whether there was no room for some.
    pub(crate) is_full: bool,
}

/// The agents in alarm, by whether somebody has acknowledged that.
#[derive(Debug, Default)]
pub(super) struct AlarmList {
    pub(super) acknowledged: Vec<AgentId>,
    pub(super) open: Vec<AgentId>,
}

/// What passes on requests to acknowledge alarms, and records them.
#[derive(Debug)]
pub(super) struct AckService {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) trail: Trail,
    /// Closed on the other side where there is no receiver of alerts.
    pub(super) requests: mpsc::Sender<AckRequest>,
    /// Whether acknowledgements survive a restart.
    pub(super) is_kept: bool,
}

impl AckService {
    /// Acknowledges the alarms of the selected agents.
    pub(super) async fn acknowledge(&self, who: AgentPattern, reason: Option<Reason>, uid: u32) -> Response {
        if self.requests.is_closed() {
            return Response::refused(NO_RECEIVER);
        }
        let Some(request) = self.trail.begin(ACK, &who, reason.as_ref(), uid).await else {
            return Response::refused(NOT_RECORDED);
        };
        let Some(found) = self.alarms(&who).await else { return Response::refused("the server ends") };
        let by = AckedBy { uid, reason: reason.clone(), at: WallTime::from(wall_now()) };
        let Some(AckOutcome { agents, is_full }) = self.ask(AckAction::Acknowledge { found, by }).await
        else {
            return Response::refused("the server ends");
        };
        let count = agents.len() as u64;
        let is_recorded = self.trail.end(request, count, agents.iter(), None).await;
        let text = who.as_str().escape_debug();
        let full = format!(
            "{MAX_ACKS} alarms are acknowledged, which is the most that there may be; unack some of them"
        );
        if agents.is_empty() {
            let nobody = format!("nobody with the name or pid {text} is in alarm");
            return Response::refused(if is_full { full } else { nobody });
        }
        let acknowledged = Matches::of_agents(count, &agents);
        let why = reason.as_ref().map_or("no reason was given", Reason::as_str);
        tracing::info!(
            target: TARGET,
            pattern = %text,
            uid,
            reason = why,
            agents = count,
            "acknowledged, by uid {uid}: the alarm of {}: {why}",
            acknowledged.shown()
        );
        let word = if !is_recorded {
            Some(Trail::INCOMPLETE.to_owned())
        } else if is_full {
            Some(full)
        } else if !self.is_kept {
            Some("the server has no --state-dir, so it forgets this when it is started again".to_owned())
        } else {
            None
        };
        Response {
            outcome: ResponseStatus::Ok,
            word,
            acknowledged: Some(acknowledged),
            ..Response::refused("")
        }
    }

    /// Ends acknowledgements of the selected agents.
    pub(super) async fn take_back(&self, who: AgentPattern, uid: u32) -> Response {
        if self.requests.is_closed() {
            return Response::refused(NO_RECEIVER);
        }
        let Some(request) = self.trail.begin(UNACK, &who, None, uid).await else {
            return Response::refused(NOT_RECORDED);
        };
        let text = who.as_str().escape_debug().to_string();
        let Some(AckOutcome { agents, .. }) = self.ask(AckAction::TakeBack(who)).await else {
            return Response::refused("the server ends");
        };
        let count = agents.len() as u64;
        let is_recorded = self.trail.end(request, count, agents.iter(), None).await;
        if agents.is_empty() {
            return Response::refused(format!(
                "no alarm of an agent with the name or pid {text} is acknowledged"
            ));
        }
        let acknowledged = Matches::of_agents(count, &agents);
        tracing::info!(
            target: TARGET,
            pattern = %text,
            uid,
            agents = count,
            "no longer acknowledged, by uid {uid}: the alarm of {}",
            acknowledged.shown()
        );
        let word = (!is_recorded).then(|| Trail::INCOMPLETE.to_owned());
        Response {
            outcome: ResponseStatus::Ok,
            word,
            acknowledged: Some(acknowledged),
            ..Response::refused("")
        }
    }

    /// The selected agents that are in alarm or not decided yet, the worst first, at most one more than can be
    /// acknowledged. `None` when the server stops.
    async fn alarms(&self, who: &AgentPattern) -> Option<Vec<Transition>> {
        alarms(&self.queries, who).await
    }

    /// The agents whose alarms are acknowledged, and those in alarm whose alarms are not. Both are empty where no alerts
    /// are sent. `None` when the server stops.
    pub(super) async fn list(&self, who: &AgentPattern) -> Option<AlarmList> {
        if self.requests.is_closed() {
            return Some(AlarmList::default());
        }
        let acknowledged = self.ask(AckAction::List).await?.agents;
        let known: HashSet<_> = acknowledged.iter().collect();
        let alarms = self.alarms(who).await?.into_iter().filter(|found| found.to.is_alarm());
        let open = alarms.map(|found| found.agent).filter(|agent| !known.contains(agent)).collect();
        Some(AlarmList { acknowledged, open })
    }

    /// The agents whose alarms are acknowledged; none where no alerts are sent. `None` when the server stops.
    pub(super) async fn acknowledged(&self) -> Option<Vec<AgentId>> {
        if self.requests.is_closed() {
            return Some(Vec::new());
        }
        Some(self.ask(AckAction::List).await?.agents)
    }

    /// `None` when the server stops.
    async fn ask(&self, action: AckAction) -> Option<AckOutcome> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(AckRequest { action, answer }).await.ok()?;
        answered.await.ok()
    }
}

async fn alarms(queries: &mpsc::Sender<Query>, who: &AgentPattern) -> Option<Vec<Transition>> {
    let mut alarms = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let (answer, answered) = oneshot::channel();
        queries.send(Query::Alarms { from, answer }).await.ok()?;
        let Alarms { found, next: further, .. } = answered.await.ok()?;
        next = further;
        alarms.extend(found.into_iter().filter(|alarm| who.matches(&alarm.agent.name, alarm.agent.pid)));
        alarms.sort_by(worst_first);
        alarms.truncate(MAX_ACKS + 1);
    }
    Some(alarms)
}

/// Orders agents by how bad their verdict is, then by how long it has stood, then by name and pid.
fn worst_first(one: &Transition, other: &Transition) -> Ordering {
    let key = |found: &Transition| {
        let rank = match found.to {
            Verdict::Down => 0,
            Verdict::Up(_) => 1,
            Verdict::Stalled => 2,
            Verdict::Expected => 3,
            Verdict::Unknown | Verdict::Gone => 4,
        };
        (rank, found.at)
    };
    let by_agent = || one.agent.name.cmp(&other.agent.name).then(one.agent.pid.cmp(&other.agent.pid));
    key(one).cmp(&key(other)).then_with(by_agent)
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;
    use crate::domain::tracker::tests::sample;

    #[tokio::test]
    async fn of_more_alarms_than_can_be_acknowledged_the_worst_come_first_wherever_they_stand() {
        let alarm = |name: String, to| Transition { to, ..sample::transition(&name) };
        let slices = [
            (0..1_000).map(|n| alarm(format!("a{n:04}"), Verdict::Stalled)).collect(),
            (0..1_000).map(|n| alarm(format!("b{n:04}"), Verdict::Expected)).collect(),
            vec![
                alarm("critical".into(), Verdict::Up(Status::Critical)),
                alarm("down".into(), Verdict::Down),
            ],
        ];
        let (queries, mut asked) = mpsc::channel(1);
        let engine = async {
            for (index, found) in slices.into_iter().enumerate() {
                let Some(Query::Alarms { answer, .. }) = asked.recv().await else { panic!("another query") };
                let next = (index < 2).then_some(index + 1);
                assert!(answer.send(Alarms { found, awaited: Vec::new(), next }).is_ok());
            }
        };
        let who = AgentPattern::parse("*").unwrap();
        let (found, ()) = tokio::join!(alarms(&queries, &who), engine);
        let names: Vec<_> = found.unwrap().iter().map(|alarm| alarm.agent.name.to_string()).collect();
        assert_eq!(names.len(), MAX_ACKS + 1);
        assert_eq!(names[..3], ["down", "critical", "a0000"]);
        assert_eq!(names[1_002..], (0..23).map(|n| format!("b{n:04}")).collect::<Vec<_>>());
    }
}
