//! Agents' names, each kept once: thousands of workers have the same one.

use std::collections::HashSet;
use std::sync::Arc;

/// Names kept beyond two for each agent before those that nobody has any more are dropped.
pub(super) const SPARE: usize = 1024;

/// The names in use, and some that were. Swept when they outgrow the agents.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    /// Gives the one copy of `name`, for one of `agents` agents.
    pub(super) fn intern(&mut self, name: &str, agents: usize) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        if self.0.len() >= 2 * agents + SPARE {
            self.0.retain(|name| Arc::strong_count(name) > 1);
        }
        let name: Arc<str> = Arc::from(name);
        self.0.insert(Arc::clone(&name));
        name
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
