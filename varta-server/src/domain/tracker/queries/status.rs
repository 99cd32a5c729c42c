//! The status of an agent at this moment, which recovery checks so that it does not act on what is over.

use std::ops::Range;

use varta_proto::Status;

use crate::base::Glob;
use crate::base::time::MonoTime;
use crate::domain::tracker::agents::status::{AgentStatus, NameCount, NameMatches};
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::transition::AgentId;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// The status of an agent; `None` when it is not known any more, or was expected and is not missing any
    /// more.
    #[must_use]
    pub fn status(&self, agent: &AgentId, now: MonoTime) -> Option<AgentStatus> {
        if agent.pid == 0 {
            let is_missing = self.missing().any(|missing| *missing == agent.name);
            return is_missing.then(|| AgentStatus {
                verdict: Verdict::Expected,
                process: None,
                silence: now.since(MonoTime::START),
                is_observed: self.observer_gaps.is_over(self.policy.stall_after, now),
            });
        }
        let number = self.find(agent)?;
        Some(AgentStatus {
            verdict: self.agents.slot(number).verdict?,
            process: self.incarnation(number),
            silence: self.silence(number, now),
            is_observed: self.observer_gaps.is_over(self.stall_after(number), now),
        })
    }

    /// The number of agents with this name in a range of slot numbers, and of those that are up and not
    /// critical.
    #[must_use]
    pub fn named(&self, name: &str, range: Range<usize>) -> NameCount {
        let Some(id) = self.names.find(name) else { return NameCount::default() };
        let mut named = NameCount::default();
        for (_, slot, rest) in self.agents.range(range) {
            if let Some(verdict) = slot.verdict.filter(|_| rest.name == id) {
                named.all += 1;
                named.up += usize::from(matches!(verdict, Verdict::Up(Status::Ok | Status::Degraded)));
            }
        }
        named
    }

    /// The agents in a range of slot numbers whose names match a pattern, without those that are gone.
    pub fn matching(&self, pattern: &Glob, range: Range<usize>) -> NameMatches {
        let mut matches = NameMatches::default();
        for (_, slot, rest) in self.agents.range(range) {
            let name = self.names.get(rest.name);
            if slot.verdict.is_some_and(|verdict| verdict != Verdict::Gone) && pattern.matches(name) {
                matches.add(name);
            }
        }
        matches
    }

    /// The expected agents that have not come and whose names match a pattern.
    pub fn expected_matching(&self, pattern: &Glob) -> NameMatches {
        let mut matches = NameMatches::default();
        for name in self.missing().chain(self.awaited()).filter(|name| pattern.matches(name)) {
            matches.add(name);
        }
        matches
    }
}
