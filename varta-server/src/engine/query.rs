use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::domain::tracker::{AgentId, Named, Standing, Transition};
use crate::domain::{ExpectedAgents, Rules};
use crate::engine::state_queue::Event;
use crate::metrics::agent_rows::{AgentMetrics, AgentRows};

/// A question to the actor. The answer is lost when the asker has gone, which is no fault.
#[derive(Debug)]
pub(crate) enum Query {
    /// Whether it still takes turns.
    Ping(oneshot::Sender<()>),
    /// Starts the rows of a scrape, for these agents.
    StartRows { which: AgentMetrics, answer: oneshot::Sender<Box<AgentRows>> },
    /// Adds agents to the rows of a scrape, from a slot number on.
    AddRows { rows: Box<AgentRows>, from: usize, answer: oneshot::Sender<Slice> },
    /// Has the tracker go by other rules and expect other agents.
    Rules(Box<(Rules, ExpectedAgents)>),
    /// How an agent stands, when all that it has sent by now is taken.
    Standing { agent: AgentId, answer: oneshot::Sender<Option<Standing>> },
    /// How many agents have a name, counted from a slot number on.
    Named { name: Arc<str>, from: usize, answer: oneshot::Sender<NamedSlice> },
    /// Who is in alarm, from a slot number on.
    Alarms { from: usize, answer: oneshot::Sender<Alarms> },
    /// Puts what is to be remembered of some agents, from a slot number on, where a place is kept for it.
    Slice { from: usize, place: mpsc::OwnedPermit<Event> },
}

/// An answer to [`Query::AddRows`].
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) rows: Box<AgentRows>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// An answer to [`Query::Named`].
#[derive(Debug)]
pub(crate) struct NamedSlice {
    pub(crate) named: Named,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// An answer to [`Query::Alarms`].
#[derive(Debug)]
pub(crate) struct Alarms {
    /// Those in alarm, and those that may be and are not judged yet; with the first slots also those that have not come.
    pub(crate) found: Vec<Transition>,
    /// With the first slots the names of those that are expected and have time yet.
    pub(crate) awaited: Vec<Arc<str>>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<usize>,
}
