//! Queries to the engine, which alone can read the tracker. Large results come in slices, so that no query
//! delays beats.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::base::Glob;
use crate::domain::AgentPattern;
use crate::domain::tracker::{
    AgentId, AgentRecord, AgentStatus, JobStatus, NameCount, NameMatches, Policy, Review, Transition, Verdict,
};
use crate::engine::handover::GiveAway;
use crate::engine::state_queue::Event;
use crate::engine::subscribers::Subscribers;
use crate::metrics::agent_rows::{AgentMetrics, AgentRows};

/// A query to the engine. A response whose receiver is gone is dropped.
#[derive(Debug)]
pub(crate) enum Query {
    /// Answered while the engine takes turns.
    Ping(oneshot::Sender<()>),
    /// The number of agents by verdict, answered between two turns.
    Population(oneshot::Sender<Population>),
    /// Starts the rows of a scrape, for these agents.
    StartRows { which: AgentMetrics, answer: oneshot::Sender<Box<AgentRows>> },
    /// Adds agents to the rows of a scrape, from slot `from` on.
    AddRows { rows: Box<AgentRows>, from: usize, answer: oneshot::Sender<Slice> },
    /// Replaces the policy of the tracker, with its rules and expected agents. The answer is how many of these are not
    /// awaited, because they were forgotten.
    Policy { policy: Box<Policy>, answer: oneshot::Sender<usize> },
    /// The status of an agent, after all datagrams received so far were processed.
    Status { agent: AgentId, answer: oneshot::Sender<Option<AgentStatus>> },
    /// The number of agents with this name, counted from slot `from` on.
    CountByName { name: Arc<str>, from: usize, answer: oneshot::Sender<NamedSlice> },
    /// The agents whose names match, from slot `from` on; the first slice has the expected ones too.
    Matching { pattern: Glob, from: usize, answer: oneshot::Sender<MatchingSlice> },
    /// Forgets the selected agents that do not live, from slot `from` on; the first slice has the expected ones
    /// too.
    Forget { who: AgentPattern, from: usize, answer: oneshot::Sender<ForgetSlice> },
    /// The selected agents from slot `from` on, and whether each lives; the first slice has the expected ones too.
    Selected { who: AgentPattern, from: usize, answer: oneshot::Sender<SelectedSlice> },
    /// How each job is.
    Jobs(oneshot::Sender<Vec<JobStatus>>),
    /// Looks at agents for what may become trouble, from slot `from` on.
    Review { review: Box<Review>, from: usize, answer: oneshot::Sender<ReviewSlice> },
    /// Adds agents to a list, from slot `from` on; the first slice also has the names of expected ones that have not
    /// come.
    Records { list: Vec<AgentRecord>, from: usize, answer: oneshot::Sender<RecordSlice> },
    /// The agents in alarm, from slot `from` on.
    Alarms { from: usize, answer: oneshot::Sender<Alarms> },
    /// Gives the state to another server, while the listeners stand still.
    GiveAway(GiveAway),
    /// The subscribers that come later than the engine.
    Attach(Box<Subscribers>),
    /// Sends snapshots of agents from slot `from` on through a reserved place of the state queue.
    Slice { from: usize, place: mpsc::OwnedPermit<Event> },
}

/// The response to [`Query::Population`]: the number of agents by [`Verdict::index`].
pub(crate) type Population = [usize; Verdict::NAMES.len()];

/// The number of agents by verdict, which the engine tells between two turns of the tracker; `None` when it has
/// ended. While it takes no turns there is no answer.
pub(crate) async fn population(queries: &mpsc::Sender<Query>) -> Option<Population> {
    let (answer, answered) = oneshot::channel();
    queries.send(Query::Population(answer)).await.ok()?;
    answered.await.ok()
}

/// The agents by verdict as one line, such as `12 agents: 10 up, 2 stalled`.
pub(crate) fn summary(population: &Population) -> String {
    let total: usize = population.iter().sum();
    let by_verdict: Vec<_> = population
        .iter()
        .zip(Verdict::NAMES)
        .filter(|(count, _)| **count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    match total {
        0 => "no agents".to_owned(),
        1 => format!("1 agent: {}", by_verdict.join(", ")),
        total => format!("{total} agents: {}", by_verdict.join(", ")),
    }
}

/// The response to [`Query::AddRows`].
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) rows: Box<AgentRows>,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The response to [`Query::CountByName`].
#[derive(Debug)]
pub(crate) struct NamedSlice {
    pub(crate) named: NameCount,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The response to [`Query::Matching`].
#[derive(Debug)]
pub(crate) struct MatchingSlice {
    pub(crate) matches: NameMatches,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The response to [`Query::Forget`].
#[derive(Debug)]
pub(crate) struct ForgetSlice {
    /// Those that are forgotten.
    pub(crate) forgotten: Vec<AgentId>,
    /// Those that live, and are not forgotten.
    pub(crate) living: Vec<AgentId>,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The response to [`Query::Selected`].
#[derive(Debug)]
pub(crate) struct SelectedSlice {
    /// The agents, and whether each lives.
    pub(crate) agents: Vec<(AgentId, bool)>,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The response to [`Query::Review`].
#[derive(Debug)]
pub(crate) struct ReviewSlice {
    pub(crate) review: Box<Review>,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The response to [`Query::Records`].
#[derive(Debug)]
pub(crate) struct RecordSlice {
    pub(crate) list: Vec<AgentRecord>,
    /// In the first slice, the names of expected agents that are overdue, and of jobs that are late.
    pub(crate) missing: Vec<Arc<str>>,
    /// In the first slice, the names of expected agents whose time has not run out.
    pub(crate) awaited: Vec<Arc<str>>,
    /// The time that the tracker took for it.
    pub(crate) took: Duration,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The response to [`Query::Alarms`].
#[derive(Debug)]
pub(crate) struct Alarms {
    /// Agents in alarm, and those whose verdict is pending; the first slice also has expected agents that are
    /// missing.
    pub(crate) found: Vec<Transition>,
    /// In the first slice, the names of expected agents whose time has not run out.
    pub(crate) awaited: Vec<Arc<str>>,
    /// The slot to continue from; `None` at the end.
    pub(crate) next: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_the_verdicts_that_agents_have() {
        let table = [
            ([0; 6], "no agents"),
            ([1, 0, 0, 0, 0, 0], "1 agent: 1 up"),
            ([10, 2, 0, 1, 0, 3], "16 agents: 10 up, 2 stalled, 1 gone, 3 expected"),
        ];
        for (population, wanted) in table {
            assert_eq!(summary(&population), wanted);
        }
    }
}
