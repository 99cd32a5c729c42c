//! What other capabilities ask of maintenance on behalf of their users.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::base::Glob;
use crate::domain::AgentPattern;
use crate::services::maintenance::options::Reason;
use crate::services::maintenance::pause::{parse_pattern, parse_reason};
use crate::services::maintenance::pauses::Pauses;
use crate::services::maintenance::protocol::{
    Matches, Request, Response, ResponseStatus, check_length, parse_who,
};
use crate::services::maintenance::requests::PauseService;

/// Where requests are made. They count and are recorded as those of this server's own user. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Desk(pub(super) Arc<PauseService>);

/// What a pause, or the end of one, came to.
#[derive(Debug)]
pub(crate) struct PauseAnswer {
    /// The pause, as a JSON object.
    pub(crate) pause: Value,
    /// What is not as the user may think.
    pub(crate) warning: Option<String>,
    /// The agents that it matches at present, and the first few of their names.
    pub(crate) agents: u64,
    pub(crate) names: Vec<String>,
}

/// What was done to agents that were named by a pattern or a pid.
#[derive(Debug)]
pub(crate) struct DoneToAgents {
    /// How many there were, and the first few of them, as a JSON object.
    pub(crate) agents: Value,
    /// Those to which it was not done because they live, likewise; null if there are none.
    pub(crate) living: Value,
    /// What is not as the user may think.
    pub(crate) warning: Option<String>,
}

/// Why a request was not carried out. Nothing has changed.
#[derive(Debug)]
pub(crate) enum NotDone {
    /// It makes no sense.
    Malformed(String),
    /// It makes sense.
    Refused(String),
}

impl Desk {
    /// How the server and its agents are, as a JSON object; `None` when the server stops.
    pub(crate) async fn status(&self) -> Option<Value> {
        self.ask(Request::Status).await.ok()?.status
    }

    /// The worst alarms, at most so many, each as a JSON object, and how many there are; `None` when the server stops.
    pub(crate) async fn alarms(&self, most: usize) -> Option<(Vec<Value>, usize)> {
        self.0.alarms(most).await
    }

    /// The pauses that are not over, each as a JSON object.
    pub(crate) async fn pauses(&self) -> Vec<Value> {
        self.ask(Request::Pauses).await.map(|answer| answer.pauses).unwrap_or_default()
    }

    /// Those of them that pause agents of this name, now or later.
    pub(crate) async fn pauses_of(&self, name: &str) -> Vec<Value> {
        let is_of = |pause: &Value| {
            pause["pattern"]
                .as_str()
                .and_then(|text| Glob::parse(text).ok())
                .is_some_and(|glob| glob.matches(name))
        };
        self.pauses().await.into_iter().filter(is_of).collect()
    }

    /// The handle that says whether an agent is paused.
    pub(crate) fn schedule(&self) -> &Pauses {
        &self.0.pauses
    }

    /// Pauses agents whose names match a pattern.
    ///
    /// # Errors
    ///
    /// See [`NotDone`].
    pub(crate) async fn pause(
        &self,
        pattern: &str,
        length: Duration,
        reason: Option<&str>,
    ) -> Result<PauseAnswer, NotDone> {
        let pattern =
            parse_pattern(pattern).map_err(|fault| NotDone::Malformed(format!("pattern: {fault}")))?;
        let length = check_length(length).map_err(|fault| NotDone::Malformed(format!("for: {fault}")))?;
        let reason = reason_of(reason)?;
        self.ask(Request::Pause { pattern, length, reason }).await.map(PauseAnswer::from)
    }

    /// Ends the pause of exactly this pattern.
    ///
    /// # Errors
    ///
    /// See [`NotDone`].
    pub(crate) async fn resume(&self, pattern: &str) -> Result<PauseAnswer, NotDone> {
        let pattern =
            parse_pattern(pattern).map_err(|fault| NotDone::Malformed(format!("pattern: {fault}")))?;
        self.ask(Request::Resume { pattern }).await.map(PauseAnswer::from)
    }

    /// Acknowledges the alarms of agents.
    ///
    /// # Errors
    ///
    /// See [`NotDone`].
    pub(crate) async fn acknowledge(&self, who: &str, reason: Option<&str>) -> Result<DoneToAgents, NotDone> {
        let (who, reason) = (named(who)?, reason_of(reason)?);
        self.ask(Request::Acknowledge { who, reason }).await.map(DoneToAgents::from)
    }

    /// Ends acknowledgements of agents.
    ///
    /// # Errors
    ///
    /// See [`NotDone`].
    pub(crate) async fn take_back(&self, who: &str) -> Result<DoneToAgents, NotDone> {
        self.ask(Request::TakeBack { who: named(who)? }).await.map(DoneToAgents::from)
    }

    /// Forgets agents that do not live.
    ///
    /// # Errors
    ///
    /// See [`NotDone`].
    pub(crate) async fn forget(&self, who: &str, reason: Option<&str>) -> Result<DoneToAgents, NotDone> {
        let (who, reason) = (named(who)?, reason_of(reason)?);
        self.ask(Request::Forget { who, reason }).await.map(DoneToAgents::from)
    }

    async fn ask(&self, request: Request) -> Result<Response, NotDone> {
        let answer = self.0.answer(request, nix::unistd::geteuid().as_raw()).await;
        match answer.outcome {
            ResponseStatus::Ok => Ok(answer),
            ResponseStatus::Refused => Err(NotDone::Refused(answer.word.unwrap_or_default())),
            ResponseStatus::Malformed => Err(NotDone::Malformed(answer.word.unwrap_or_default())),
        }
    }
}

/// The agents that a text names.
fn named(who: &str) -> Result<AgentPattern, NotDone> {
    parse_who(who).map_err(NotDone::Malformed)
}

fn reason_of(reason: Option<&str>) -> Result<Option<Reason>, NotDone> {
    let parsed = reason.map(parse_reason).transpose();
    parsed.map_err(|fault| NotDone::Malformed(format!("reason: {fault}")))
}

impl From<Response> for DoneToAgents {
    fn from(answer: Response) -> Self {
        let Response { forgotten, acknowledged, living, word, .. } = answer;
        let shown = |matches: Option<Matches>| matches.map_or(Value::Null, |matches| matches.to_json());
        DoneToAgents { agents: shown(forgotten.or(acknowledged)), living: shown(living), warning: word }
    }
}

impl From<Response> for PauseAnswer {
    fn from(answer: Response) -> Self {
        let Response { mut pauses, word, matches, .. } = answer;
        let (agents, names) = matches.map_or((0, Vec::new()), |matches| (matches.agents, matches.names));
        PauseAnswer { pause: pauses.pop().unwrap_or_default(), warning: word, agents, names }
    }
}
