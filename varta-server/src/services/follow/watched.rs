//! Whether the agents of a name are in a state, by a list of them and the changes after it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::tracker::Verdict;

/// Of how many agents it must be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    /// Of one.
    Any,
    /// Of all that there are, and of one at least.
    All,
}

/// The state of each agent, by its id.
#[derive(Debug, Default)]
pub(super) struct Watched {
    agents: BTreeMap<String, &'static str>,
}

impl Watched {
    /// The most agents that are watched.
    pub(super) const MAX: usize = 1_000_000;

    /// Takes a row of the list of agents. Whether it makes sense.
    pub(super) fn row(&mut self, row: &Value) -> bool {
        self.put(row, "state")
    }

    /// Takes an event of the stream. Whether it makes sense; what is not known here does.
    pub(super) fn event(&mut self, kind: &str, data: &Value) -> bool {
        match kind {
            "change" => self.put(data, "to"),
            "forgotten" => data["id"].as_str().is_some_and(|id| {
                self.agents.remove(id);
                true
            }),
            _ => true,
        }
    }

    /// The agents that are in one of these states, if enough of them are.
    pub(super) fn reached(&self, states: &[&str], quantity: Quantity) -> Option<Vec<(&str, &'static str)>> {
        let all = || self.agents.iter().map(|(id, state)| (id.as_str(), *state));
        let reached: Vec<_> = all().filter(|(_, state)| states.contains(state)).collect();
        let is_enough = match quantity {
            Quantity::Any => !reached.is_empty(),
            Quantity::All => !reached.is_empty() && reached.len() == self.agents.len(),
        };
        is_enough.then_some(reached)
    }

    /// How many there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.agents.len()
    }

    fn put(&mut self, row: &Value, key: &str) -> bool {
        let state =
            row[key].as_str().and_then(|state| Verdict::NAMES.into_iter().find(|name| *name == state));
        let (Some(id), Some(state)) = (row["id"].as_str(), state) else { return false };
        if self.agents.len() >= Self::MAX && !self.agents.contains_key(id) {
            return false;
        }
        self.agents.insert(id.to_owned(), state);
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_agent_is_enough_or_all_must_be_so_and_nobody_is_nothing() {
        let mut watched = Watched::default();
        for quantity in [Quantity::Any, Quantity::All] {
            assert_eq!(watched.reached(&["up"], quantity), None);
        }
        assert!(watched.row(&json!({ "id": "a[1]@h", "state": "up" })));
        assert!(watched.row(&json!({ "id": "b[2]@h", "state": "stalled" })));
        assert_eq!(watched.reached(&["up"], Quantity::Any), Some(vec![("a[1]@h", "up")]));
        assert_eq!(watched.reached(&["up"], Quantity::All), None);
        assert_eq!(watched.reached(&["up", "stalled"], Quantity::All).unwrap().len(), 2);
        assert!(watched.event("change", &json!({ "id": "b[2]@h", "from": "stalled", "to": "up" })));
        assert_eq!(watched.reached(&["up"], Quantity::All).unwrap().len(), 2);
        assert!(watched.event("forgotten", &json!({ "id": "a[1]@h" })));
        assert_eq!((watched.len(), watched.reached(&["down"], Quantity::Any)), (1, None));
    }

    #[test]
    fn what_makes_no_sense_is_told_and_what_is_unknown_is_passed_over() {
        let mut watched = Watched::default();
        assert!(!watched.row(&json!({ "id": "a", "state": "excellent" })));
        assert!(!watched.row(&json!({ "state": "up" })));
        assert!(!watched.event("forgotten", &json!({})));
        assert!(watched.event("hello", &json!({})));
        assert_eq!(watched.len(), 0);
    }
}
