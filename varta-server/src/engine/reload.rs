//! What the file of `--config` says of agents by their names, read while the server runs.

use tokio::sync::mpsc;

use crate::base::error::Error;
use crate::domain::tracker::Policy;
use crate::engine::options::{EngineTables, check_agents};
use crate::engine::query::Query;

/// The way to give the tracker other rules.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    policy: Policy,
    queries: mpsc::Sender<Query>,
}

/// Rules and expected agents that do not count yet.
#[derive(Debug)]
pub(crate) struct Staged {
    tables: EngineTables,
    queries: mpsc::Sender<Query>,
}

impl Reload {
    /// `policy` is what new rules have to go together with.
    pub(crate) fn new(policy: Policy, queries: mpsc::Sender<Query>) -> Self {
        Reload { policy, queries }
    }

    /// Checks the tables. Nothing changes by it.
    ///
    /// # Errors
    ///
    /// When they do not go together with the policy.
    pub(crate) fn stage(&self, tables: EngineTables) -> Result<Staged, Error> {
        check_agents(&tables.rules, &tables.expected, &self.policy)?;
        Ok(Staged { tables, queries: self.queries.clone() })
    }
}

impl Staged {
    /// Has them count from now on. `None` when the server is about to end.
    pub(crate) async fn commit(self) -> Option<()> {
        let EngineTables { rules, expected } = self.tables;
        self.queries.send(Query::Rules(Box::new((rules, expected)))).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Glob;
    use crate::base::limits::MAX_DURATION;
    use crate::domain::{Expected, Rule};

    #[tokio::test]
    async fn what_does_not_go_together_with_the_policy_is_refused_before_anything_changes() {
        let (to_queries, mut queries) = mpsc::channel(1);
        let reload = Reload::new(Policy { max_agents: 1, ..Policy::default() }, to_queries);
        let mut patient = EngineTables::default();
        let name = Glob::parse("slow-*").unwrap();
        patient.rules.add(Rule { stall_after: Some(MAX_DURATION), ..Rule::of(name) }).unwrap();
        assert!(reload.stage(patient).unwrap_err().to_string().starts_with("--forget-after"));
        let mut many = EngineTables::default();
        many.expected.add(Expected::named("one").unwrap()).unwrap();
        let one = reload.stage(many.clone()).unwrap();
        many.expected.add(Expected::named("two").unwrap()).unwrap();
        assert!(reload.stage(many).unwrap_err().to_string().starts_with("--max-agents"));
        assert!(queries.try_recv().is_err());
        one.commit().await.unwrap();
        assert!(matches!(queries.try_recv(), Ok(Query::Rules(_))));
    }
}
