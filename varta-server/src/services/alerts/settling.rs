//! Ends of processes whose place another may take: no alarm is raised for one before that is settled.

use std::collections::{BTreeSet, HashMap};

use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::{AgentId, Transition};

/// The maximum number of transitions that are held back; beyond it they are handed on at once.
const MAX_HELD: usize = 65_536;

/// Transitions that are held back until they [settle](Transition::settles_at).
#[derive(Debug, Default)]
pub(super) struct Settling {
    held: HashMap<AgentKey, Transition>,
    due: BTreeSet<(MonoTime, AgentKey)>,
}

impl Settling {
    /// Takes a transition, and returns it unless it is held back. It replaces an earlier one of its agent that
    /// is held, and that of the agent whose place it takes.
    pub(super) fn take(&mut self, transition: Transition, now: MonoTime) -> Option<Transition> {
        let key = AgentKey::of(&transition.agent);
        self.drop_held(&key);
        if let Some(predecessor) = &transition.predecessor {
            self.drop_held(&AgentKey::of(predecessor));
        }
        if transition.settles_at <= now || self.held.len() >= MAX_HELD {
            return Some(transition);
        }
        self.due.insert((transition.settles_at, key.clone()));
        self.held.insert(key, transition);
        None
    }

    /// Drops what is held back of an agent that is forgotten.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.drop_held(&AgentKey::of(agent));
    }

    /// The next transition that has settled. Drained until it returns `None`.
    pub(super) fn poll(&mut self, now: MonoTime) -> Option<Transition> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.held.remove(&key)
    }

    /// When the next one settles.
    pub(super) fn next_at(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _)| *at)
    }

    fn drop_held(&mut self, key: &AgentKey) {
        if let Some(held) = self.held.remove(key) {
            self.due.remove(&(held.settles_at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tracker::Verdict;
    use crate::domain::tracker::tests::sample::transition;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_secs(seconds)
    }

    /// An agent that went down, which settles at a time.
    fn down(pid: u32, settles_at: u64) -> Transition {
        let sample = transition("worker");
        let agent = AgentId { pid, ..sample.agent };
        Transition { agent, to: Verdict::Down, settles_at: at(settles_at), ..sample }
    }

    #[test]
    fn an_end_is_held_back_until_it_settles_and_anything_else_is_not() {
        let mut settling = Settling::default();
        assert_eq!(settling.take(transition("worker"), at(1)), Some(transition("worker")));
        for (pid, settles_at) in [(1, 9), (2, 5), (3, 7)] {
            assert_eq!(settling.take(down(pid, settles_at), at(3)), None);
        }
        assert_eq!(settling.next_at(), Some(at(5)));
        assert_eq!(settling.poll(at(4)), None);
        let pids: Vec<_> = std::iter::from_fn(|| settling.poll(at(7))).map(|held| held.agent.pid).collect();
        assert_eq!(pids, [2, 3]);
        assert_eq!((settling.next_at(), settling.held.len()), (Some(at(9)), 1));
    }

    #[test]
    fn whose_place_is_taken_or_who_comes_back_is_never_told() {
        let mut settling = Settling::default();
        settling.take(down(1, 5), at(3));
        settling.take(down(2, 5), at(3));
        let successor = Transition { predecessor: Some(down(1, 5).agent), settles_at: at(0), ..down(3, 0) };
        assert_eq!(settling.take(successor.clone(), at(4)), Some(successor));
        settling.take(down(4, 5), at(3));
        settling.forget(&down(4, 5).agent);
        let back = Transition { to: Verdict::Gone, ..down(2, 0) };
        assert_eq!(settling.take(back.clone(), at(4)), Some(back));
        assert_eq!((settling.poll(at(9)), settling.next_at()), (None, None));
        assert!(settling.held.is_empty() && settling.due.is_empty());
    }
}
