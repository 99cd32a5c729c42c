//! How an agent stands at the moment: asked by who is about to act on it, and acts on nothing that is over.

use std::ops::Range;
use std::time::Duration;

use varta_proto::Status;

use super::Tracker;
use super::agent::AgentKey;
use super::judgement::ProcessId;
use super::source::SourceId;
use super::transition::AgentId;
use super::verdict::Verdict;
use crate::beat::Lane;
use crate::time::MonoTime;

/// How an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is concluded about it.
    pub verdict: Verdict,
    /// Its process, of this host and as far as it is known. It may have ended.
    pub process: Option<ProcessId>,
    /// How long it has been silent.
    pub silence: Duration,
    /// Whether nothing was missed for as long as it may be silent: otherwise its silence may be this server's own.
    pub is_seen: bool,
}

impl Tracker {
    /// How an agent stands; `None` when it is not known any more, or is not missed any more.
    #[must_use]
    pub fn standing(&self, agent: &AgentId, now: MonoTime) -> Option<Standing> {
        let AgentId { ref name, origin, pid, twin } = *agent;
        if pid == 0 {
            return self.awaited.missing().any(|missing| missing == name).then(|| Standing {
                verdict: Verdict::Expected,
                process: None,
                silence: now.since(MonoTime::START),
                is_seen: self.blindness.is_over(self.policy.stall_after, now),
            });
        }
        let source = self.sources.find(origin)?;
        let number = if source == SourceId::LOCAL {
            self.agents.find(AgentKey::local(pid))
        } else {
            let key = AgentKey { source, pid, lane: Lane::default() };
            self.agents.twins(key).find(|number| self.agents.rest(*number).twin == twin)
        }?;
        Some(Standing {
            verdict: self.agents.slot(number).verdict?,
            process: self.incarnation(number),
            silence: self.silence(number, now),
            is_seen: self.blindness.is_over(self.stall_after(number), now),
        })
    }

    /// How many of the agents in a range of slot numbers have this name, and how many of those are up and well.
    #[must_use]
    pub fn named(&self, name: &str, range: Range<usize>) -> Named {
        let Some(id) = self.names.find(name) else { return Named::default() };
        let mut named = Named::default();
        for (_, slot, rest) in self.agents.range(range) {
            if let Some(verdict) = slot.verdict.filter(|_| rest.name == id) {
                named.all += 1;
                named.up += usize::from(matches!(verdict, Verdict::Up(Status::Ok | Status::Degraded)));
            }
        }
        named
    }
}

/// How many agents have a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// All that are known, also those that are down or gone.
    pub all: usize,
    /// Those that beat and are not in a critical state.
    pub up: usize,
}

impl std::ops::AddAssign for Named {
    fn add_assign(&mut self, more: Named) {
        self.all += more.all;
        self.up += more.up;
    }
}
