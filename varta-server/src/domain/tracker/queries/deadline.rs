//! The deadline of one agent, by its sender.

use crate::base::time::MonoTime;
use crate::domain::beat::Sender;
use crate::domain::tracker::agents::agent::IndexKey;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// When the agent of this sender will be called stalled, as far as that is known by now; `None` if it is
    /// not known, or is stalled, down or gone already.
    #[must_use]
    pub fn deadline_of(&self, sender: Sender) -> Option<MonoTime> {
        let Sender { origin, pid, lane } = sender;
        let source = self.sources.find(origin)?;
        let number = self.agents.find(IndexKey { source, pid, lane })?;
        let is_awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        is_awaited.then(|| self.deadline(number))
    }
}
