//! The latest changes, numbered: what a reader of the stream has missed, and what is known of an agent beyond what the
//! tracker keeps.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::base::time::WallTime;
use crate::domain::describe::describe;
use crate::domain::tracker::{AgentId, Problem, Transition};

/// The most changes that are kept for readers who come back.
pub(super) const MAX_KEPT: usize = 8_192;

/// Until where somebody knows what has happened: a number of changes, of one server. Written `19ad3c5f0b2-412`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Revision {
    /// The start of the server, in milliseconds of Unix time.
    pub(super) instance: u64,
    pub(super) number: u64,
}

impl Revision {
    /// The revision that a text names.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (instance, number) = text.split_once('-')?;
        let instance = u64::from_str_radix(instance, 16).ok()?;
        Some(Revision { instance, number: number.parse().ok()? })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.instance, self.number)
    }
}

/// A change.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) number: u64,
    pub(super) what: What,
    /// Its form for readers, made for the first of them.
    text: OnceLock<Bytes>,
}

#[derive(Debug)]
pub(super) enum What {
    /// A verdict changed.
    Verdict(Arc<Transition>, WallTime),
    /// The tracker has forgotten the agent.
    Forgotten(AgentId),
    /// Changes found no place in the queue, and are not known.
    Lost,
}

impl Change {
    /// The agent that it is about.
    pub(super) fn agent(&self) -> Option<&AgentId> {
        match &self.what {
            What::Verdict(transition, _) => Some(&transition.agent),
            What::Forgotten(agent) => Some(agent),
            What::Lost => None,
        }
    }

    /// It as an event of the stream, without its id.
    pub(super) fn event(&self, host: &str) -> &Bytes {
        self.text.get_or_init(|| {
            let (name, data) = match &self.what {
                What::Verdict(transition, at) => ("change", record(transition, *at, host)),
                What::Forgotten(agent) => ("forgotten", json!({ "id": agent.instance(host) })),
                What::Lost => ("resync", json!({ "reason": "changes were lost" })),
            };
            Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
        })
    }
}

/// A transition as a JSON object: as in the events file, with the id of the agent, what is wrong with it, and a sentence.
pub(super) fn record(transition: &Transition, at: WallTime, host: &str) -> Value {
    let mut fields = json!(transition.fields().on_host(host));
    fields["at"] = json!(at.to_string());
    fields["id"] = json!(transition.agent.instance(host));
    fields["problem"] = json!(Problem::of(transition.to).map(Problem::as_str));
    fields["summary"] = json!(describe(transition));
    fields
}

/// The changes. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Changes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    instance: u64,
    kept: Mutex<Kept>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The newest last. Their numbers have no gaps.
    changes: VecDeque<Arc<Change>>,
    /// The newest change of a verdict for each agent, as far as it is kept.
    of_agents: HashMap<AgentId, Arc<Change>>,
}

/// What a reader is given.
#[derive(Debug)]
pub(super) enum Missed {
    /// The changes since, in order; none if there are none.
    Known(Vec<Arc<Change>>),
    /// Some are not kept any more.
    Unknown,
}

impl Changes {
    pub(super) fn new(instance: u64) -> Self {
        Changes(Arc::new(Shared { instance, kept: Mutex::default(), newest: watch::Sender::new(0) }))
    }

    /// Until where everything is known.
    pub(super) fn revision(&self) -> Revision {
        Revision { instance: self.0.instance, number: *self.0.newest.borrow() }
    }

    /// The number of the next change. Only who adds them can rely on it.
    pub(super) fn next_number(&self) -> u64 {
        self.revision().number.saturating_add(1)
    }

    /// Resolves with each change of the newest number.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }

    /// Adds a change. The oldest makes room.
    pub(super) fn add(&self, what: What) {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.0.newest.borrow().saturating_add(1);
        let change = Arc::new(Change { number, what, text: OnceLock::new() });
        match &change.what {
            What::Verdict(transition, _) => {
                if let Some(predecessor) = &transition.predecessor {
                    kept.of_agents.remove(predecessor);
                }
                kept.of_agents.insert(transition.agent.clone(), Arc::clone(&change));
            }
            What::Forgotten(agent) => _ = kept.of_agents.remove(agent),
            What::Lost => {}
        }
        kept.changes.push_back(change);
        if kept.changes.len() > MAX_KEPT
            && let Some(oldest) = kept.changes.pop_front()
            && let Some(agent) = oldest.agent()
            && kept.of_agents.get(agent).is_some_and(|newest| newest.number == oldest.number)
        {
            kept.of_agents.remove(agent);
        }
        drop(kept);
        self.0.newest.send_replace(number);
    }

    /// Up to `most` changes after this number.
    pub(super) fn after(&self, number: u64, most: usize) -> Missed {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = *self.0.newest.borrow();
        let first = kept.changes.front().map_or(newest + 1, |change| change.number);
        match number {
            _ if number > newest => Missed::Unknown,
            _ if number + 1 < first => Missed::Unknown,
            _ => {
                let skipped = usize::try_from(number + 1 - first).unwrap_or(usize::MAX);
                Missed::Known(kept.changes.iter().skip(skipped).take(most).map(Arc::clone).collect())
            }
        }
    }

    /// The newest change of an agent's verdict, if it is kept.
    pub(super) fn of_agent(&self, agent: &AgentId) -> Option<Arc<Change>> {
        self.look(|changes| changes.get(agent).cloned())
    }

    /// Looks at the newest changes of the agents.
    pub(super) fn look<T>(&self, look: impl FnOnce(&HashMap<AgentId, Arc<Change>>) -> T) -> T {
        look(&self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).of_agents)
    }

    /// All that are kept, the newest first.
    pub(super) fn newest_first(&self) -> Vec<Arc<Change>> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.changes.iter().rev().map(Arc::clone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MonoTime;

    fn missing(name: &str) -> What {
        What::Verdict(Transition::of_missing(&name.into(), MonoTime::START).into(), WallTime::default())
    }

    fn numbers(missed: Missed) -> Option<Vec<u64>> {
        match missed {
            Missed::Known(changes) => Some(changes.iter().map(|change| change.number).collect()),
            Missed::Unknown => None,
        }
    }

    #[test]
    fn who_comes_back_is_given_what_it_missed_or_told_that_it_is_not_known_any_more() {
        let changes = Changes::new(1);
        assert_eq!(numbers(changes.after(0, 9)), Some(vec![]));
        for _ in 0..MAX_KEPT {
            changes.add(missing("a"));
        }
        let newest = MAX_KEPT as u64;
        assert_eq!(numbers(changes.after(0, 2)), Some(vec![1, 2]));
        assert_eq!(numbers(changes.after(newest - 1, 9)), Some(vec![newest]));
        assert_eq!(numbers(changes.after(newest, 9)), Some(vec![]));
        changes.add(missing("a"));
        assert_eq!(numbers(changes.after(0, 9)), None, "the first is not kept any more");
        assert_eq!(numbers(changes.after(1, 1)), Some(vec![2]));
        assert_eq!(numbers(changes.after(newest + 2, 9)), None, "this server has not come so far");
    }

    #[test]
    fn the_newest_change_of_an_agent_is_known_as_long_as_it_is_kept() {
        let changes = Changes::new(1);
        let agent = AgentId::expected(&"a".into());
        changes.add(missing("a"));
        assert_eq!(changes.of_agent(&agent).unwrap().number, 1);
        for _ in 0..MAX_KEPT {
            changes.add(What::Lost);
        }
        assert!(changes.of_agent(&agent).is_none());
        changes.add(missing("a"));
        changes.add(What::Forgotten(agent.clone()));
        assert!(changes.of_agent(&agent).is_none());
        assert!(changes.look(HashMap::is_empty));
    }

    #[test]
    fn a_revision_reads_as_it_is_written() {
        let revision = Revision { instance: 0x19a, number: 412 };
        assert_eq!(revision.to_string(), "19a-412");
        assert_eq!(Revision::parse("19a-412"), Some(revision));
        for senseless in ["", "-", "19a", "19a-", "x-1", "19a-1-1", "19a--1", "19a-18446744073709551616"] {
            assert_eq!(Revision::parse(senseless), None, "{senseless}");
        }
    }
}
