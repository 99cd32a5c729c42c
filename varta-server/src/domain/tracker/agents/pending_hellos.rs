//! Hellos that arrive before the first beat of their agent, which the tracker does not know until then.

use std::collections::VecDeque;

use varta_proto::control::AgentName;

use crate::domain::beat::{Hello, Sender};

/// The maximum number of Hellos that wait for a first beat. Beyond it the oldest are dropped: an agent
/// repeats its Hello within a minute.
const MAX_PENDING: usize = 4_096;

/// The Hellos of agents that have not beaten yet.
#[derive(Debug, Default)]
pub(in crate::domain::tracker) struct PendingHellos(VecDeque<(Sender, Hello)>);

impl PendingHellos {
    /// All of them, the oldest first.
    pub(in crate::domain::tracker) fn iter(&self) -> impl Iterator<Item = (&Sender, &Hello)> {
        self.0.iter().map(|(sender, hello)| (sender, hello))
    }

    pub(in crate::domain::tracker) fn put(&mut self, sender: Sender, introduction: Hello) {
        self.0.retain(|(waiting, _)| *waiting != sender);
        if self.0.len() >= MAX_PENDING {
            self.0.pop_front();
        }
        self.0.push_back((sender, introduction));
    }

    /// The name by which a sender has introduced itself.
    pub(in crate::domain::tracker) fn name_of(&self, sender: Sender) -> Option<&AgentName> {
        self.0.iter().find(|(waiting, _)| *waiting == sender)?.1.name.as_ref()
    }

    #[inline]
    pub(in crate::domain::tracker) fn take(&mut self, sender: Sender) -> Option<Hello> {
        if self.0.is_empty() {
            return None;
        }
        let place = self.0.iter().position(|(waiting, _)| *waiting == sender)?;
        self.0.remove(place).map(|(_, introduction)| introduction)
    }
}
