//! The policy of the tracker, read while the server runs.

use tokio::sync::{mpsc, oneshot};

use crate::base::error::Error;
use crate::base::options::names;
use crate::domain::tracker::Policy;
use crate::engine::options::{EngineArgs, check_policy, max_plain_agents};
use crate::engine::query::Query;

/// The options that the running tracker takes over: all of [`EngineArgs`] but the number of agents, for which it
/// has laid out memory.
pub(crate) fn options() -> impl Iterator<Item = String> {
    names::<EngineArgs>().into_iter().filter(|option| option != "max-agents")
}

/// The way to give the tracker another policy.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    max_agents: usize,
    queries: mpsc::Sender<Query>,
}

/// A policy that does not count yet.
#[derive(Debug)]
pub(crate) struct Staged {
    policy: Policy,
    queries: mpsc::Sender<Query>,
}

impl Reload {
    /// For a tracker with room for so many agents.
    pub(crate) fn new(max_agents: usize, queries: mpsc::Sender<Query>) -> Self {
        Reload { max_agents, queries }
    }

    /// Checks the policy beside the room that the tracker has. `is_only_plain` when nothing vouches for any agent.
    /// Nothing changes by it.
    ///
    /// # Errors
    ///
    /// When they do not go together.
    pub(crate) fn stage(&self, policy: Policy, is_only_plain: bool) -> Result<Staged, Error> {
        let max_agents = self.max_agents;
        let max_plain_agents = max_plain_agents(max_agents, is_only_plain);
        let policy = Policy { max_agents, max_plain_agents, ..policy };
        check_policy(&policy)?;
        Ok(Staged { policy, queries: self.queries.clone() })
    }
}

impl Staged {
    /// Has it count, and says how many of the expected agents are not awaited, because they were forgotten. `None`
    /// when the server is about to end.
    pub(crate) async fn commit(self) -> Option<usize> {
        let (answer, answered) = oneshot::channel();
        self.queries.send(Query::Policy { policy: Box::new(self.policy), answer }).await.ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Glob;
    use crate::base::limits::MAX_DURATION;
    use crate::domain::{Expected, Rule};

    #[tokio::test]
    async fn what_does_not_go_together_with_the_room_for_agents_is_refused_before_anything_changes() {
        let (to_queries, mut queries) = mpsc::channel(1);
        let reload = Reload::new(1, to_queries);
        let mut patient = Policy::default();
        let name = Glob::parse("slow-*").unwrap();
        patient.rules.add(Rule { stall_after: Some(MAX_DURATION), ..Rule::of(name) }).unwrap();
        assert!(reload.stage(patient, false).unwrap_err().to_string().starts_with("--forget-after"));
        let mut many = Policy::default();
        many.expected.add(Expected::named("one").unwrap()).unwrap();
        let one = reload.stage(many.clone(), true).unwrap();
        many.expected.add(Expected::named("two").unwrap()).unwrap();
        assert!(reload.stage(many, false).unwrap_err().to_string().starts_with("--max-agents"));
        assert!(queries.try_recv().is_err());
        let engine = async {
            let Some(Query::Policy { policy, answer }) = queries.recv().await else {
                panic!("it is a policy")
            };
            answer.send(3).unwrap();
            (policy.max_agents, policy.max_plain_agents)
        };
        let (committed, taken) = tokio::join!(one.commit(), engine);
        assert_eq!((committed, taken), (Some(3), (1, 1)));
    }
}
