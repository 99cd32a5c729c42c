//! Fetching what the replay table knows, a part at a time.

use super::Event;
use super::sweep::SLICE_PAUSE;
use super::writer::Writer;
use crate::listener::Vault;
use crate::time::MonoTime;

/// Sessions of the replay table that are written at once, and looked at, while nothing can be unsealed.
const SEALS_AT_ONCE: usize = 1_000;
const SEALS_LOOKED_AT: usize = 16_384;

/// From where on, and when, sessions of the replay table are looked at next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Save {
    pub(super) from: usize,
    pub(super) at: MonoTime,
}

/// Waits until the replay table has changed; for ever where there is none.
pub(super) async fn changed(vault: Option<&Vault>) {
    match vault {
        Some(vault) => vault.changed().await,
        None => std::future::pending().await,
    }
}

impl Writer {
    /// Fetches sessions of the replay table to be written, if it is time.
    pub(super) fn save(&mut self, now: MonoTime) {
        let due = self.save.filter(|save| save.at <= now && self.failing.is_none());
        let (Some(Save { from, .. }), Some(vault)) = (due, &self.means.vault) else { return };
        let (seals, next) = vault.take_unsaved(from, SEALS_LOOKED_AT, SEALS_AT_ONCE);
        self.save = next.map(|from| Save { from, at: now + SLICE_PAUSE });
        if !seals.is_empty() {
            self.take(Event::Seals(seals), now);
        }
    }
}
