//! Maintenance: agents that an operator has paused for a time. They are watched and shown, and alarm nobody.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use crate::config::Glob;

/// Whom an operator has paused. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<RwLock<Vec<Pause>>>);

#[derive(Clone, Debug)]
struct Pause {
    pattern: Glob,
    until: Option<SystemTime>,
}

impl Pauses {
    /// Whether agents of this name are paused.
    pub(crate) fn is_paused(&self, name: &str, now: SystemTime) -> bool {
        let pauses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pauses.iter().any(|pause| pause.until.is_none_or(|until| now < until) && pause.pattern.matches(name))
    }
}
