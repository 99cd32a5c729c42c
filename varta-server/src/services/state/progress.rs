use std::time::Duration;

use crate::base::time::MonoTime;
use crate::ingest::Vault;

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

/// How often all agents are gone over.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Between two slices, so that a million agents neither hold up beats nor fill the disk's queue.
pub(super) const SLICE_PAUSE: Duration = Duration::from_millis(100);

/// How far the agents have been gone over.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Of the one that goes on or was the last: what it wrote bears that number.
    pub(super) number: i64,
    /// Whether every slice of it has been written so far.
    pub(super) is_whole: bool,
    pub(super) next: Next,
}

/// What comes next in a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To begin one. `NEVER` when there is nobody to go over.
    Begin { at: MonoTime },
    /// To ask for the slice from this slot number on.
    Ask { from: usize, at: MonoTime },
    /// A slice is on its way.
    Wait,
}
