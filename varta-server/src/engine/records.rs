//! Slices of the list of all agents, which readers of the API see.

use std::sync::Arc;

use crate::domain::tracker::{AgentRecord, AgentView};
use crate::engine::query::RecordSlice;
use crate::engine::task::TrackerActor;

/// The most agents that are copied before beats are processed again.
const RECORDS_PER_TURN: usize = 500;

impl TrackerActor {
    /// Adds some agents to a list, from slot `from` on.
    pub(super) fn records(&self, mut list: Vec<AgentRecord>, from: usize) -> RecordSlice {
        let (begin, end) = (self.clock.now(), from.saturating_add(RECORDS_PER_TURN));
        let (mut missing, mut awaited) = (Vec::new(), Vec::new());
        if from == 0 {
            missing.extend(self.tracker.missing().map(Arc::clone));
            awaited.extend(self.tracker.awaited().map(Arc::clone));
        }
        list.extend(self.tracker.agents(from..end).map(AgentView::record));
        let next = (end < self.tracker.slots()).then_some(end);
        RecordSlice { list, missing, awaited, took: self.clock.now() - begin, next }
    }
}
