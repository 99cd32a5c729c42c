//! Checkpoints of the replay table: changed windows are taken in batches, so that decryption is never blocked
//! for long.

use crate::base::time::MonoTime;
use crate::engine::state_queue::Event;
use crate::services::state::progress::{SLICE_PAUSE, Save};
use crate::services::state::writer::Writer;

/// The most replay windows taken at once, and the most slots examined for them, while the keyring is locked.
const SEALS_AT_ONCE: usize = 1_000;
const SEALS_LOOKED_AT: usize = 16_384;

impl Writer {
    /// Takes changed replay windows to be written, when a checkpoint is due.
    pub(super) fn save(&mut self, now: MonoTime) {
        let due = self.save.filter(|save| save.at <= now && self.failing.is_none());
        let Some(Save { from, .. }) = due else { return };
        let (seals, next) = self.keyring.unsaved_batch(from, SEALS_LOOKED_AT, SEALS_AT_ONCE);
        self.save = next.map(|from| Save { from, at: now + SLICE_PAUSE });
        if !seals.is_empty() {
            self.take(Event::Seals(seals), now);
        }
    }
}
