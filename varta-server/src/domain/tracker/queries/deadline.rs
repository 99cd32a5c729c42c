//! What the tracker shows of itself: figures, and each agent as a scrape sees it.

use crate::base::time::MonoTime;
use crate::domain::beat::Sender;
use crate::domain::tracker::agents::agent::AgentKey;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// When the agent that a sender is will be called stalled, as far as that is known by now; `None` for who is not known,
    /// or is silent or gone already.
    #[must_use]
    pub fn deadline_of(&self, sender: Sender) -> Option<MonoTime> {
        let Sender { origin, pid, lane } = sender;
        let source = self.sources.find(origin)?;
        let number = self.agents.find(AgentKey { source, pid, lane })?;
        let is_awaited = self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited);
        is_awaited.then(|| self.deadline(number))
    }
}
