//! The hosts to which the parts of the server send, for who looks whether they can be reached.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What each part sends to at present, as `HOST:PORT`. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>);

impl Peers {
    /// Says what a part sends to from now on.
    pub(crate) fn set(&self, part: &'static str, addresses: Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, addresses);
    }

    /// What this part sends to.
    pub(crate) fn of(&self, part: &str) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(part).cloned().unwrap_or_default()
    }
}
