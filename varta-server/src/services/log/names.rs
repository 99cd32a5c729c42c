//! Counts by the names of agents, for summaries: a few names, and all others together.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use crate::domain::describe::counted;

/// The most names in a summary; the agents of all other names are counted together.
const MAX_NAMES: usize = 8;

/// How often each name came, for the first names that came.
#[derive(Debug, Default)]
pub(super) struct NameCounts {
    names: Vec<(Arc<str>, u32)>,
    others: u32,
}

impl NameCounts {
    pub(super) fn add(&mut self, name: &Arc<str>) {
        match self.names.iter().position(|(known, _)| known == name) {
            Some(place) => self.names[place].1 = self.names[place].1.saturating_add(1),
            None if self.names.len() < MAX_NAMES => self.names.push((Arc::clone(name), 1)),
            None => self.others = self.others.saturating_add(1),
        }
    }
}

/// The names with their counts, the most frequent first, as in `worker 5, billing 2, others 8`.
impl fmt::Display for NameCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.names.clone();
        names.sort_by_key(|(_, count)| Reverse(*count));
        let escaped: Vec<_> =
            names.iter().map(|(name, count)| (name.escape_debug().to_string(), *count)).collect();
        let others = (self.others > 0).then_some(("others", self.others));
        f.write_str(&counted(escaped.iter().map(|(name, count)| (name.as_str(), *count)).chain(others)))
    }
}
