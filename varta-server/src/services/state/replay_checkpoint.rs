//! Fetching what the replay table knows, a part at a time.

use crate::base::time::MonoTime;
use crate::engine::state_queue::Event;
use crate::services::state::progress::{SLICE_PAUSE, Save};
use crate::services::state::writer::Writer;

/// Sessions of the replay table that are written at once, and looked at, while nothing can be unsealed.
const SEALS_AT_ONCE: usize = 1_000;
const SEALS_LOOKED_AT: usize = 16_384;

impl Writer {
    /// Fetches sessions of the replay table to be written, if it is time.
    pub(super) fn save(&mut self, now: MonoTime) {
        let due = self.save.filter(|save| save.at <= now && self.failing.is_none());
        let (Some(Save { from, .. }), Some(vault)) = (due, &self.vault) else { return };
        let (seals, next) = vault.take_unsaved(from, SEALS_LOOKED_AT, SEALS_AT_ONCE);
        self.save = next.map(|from| Save { from, at: now + SLICE_PAUSE });
        if !seals.is_empty() {
            self.take(Event::Seals(seals), now);
        }
    }
}
