//! What is known of an agent in bits.

use serde::{Deserialize, Serialize};

/// Flags in one byte: whether `AgentRare::sessions` has entries, how the agent uses a shared memory page, whether it is
/// known by sd_notify(3), awaited, and held stalled by its run, and what is known of its progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct SlotFlags(u8);

impl SlotFlags {
    pub(super) const SESSIONS: u8 = 1;
    pub(super) const PAGE: u8 = 2;
    pub(super) const PAGE_IS_READ: u8 = 4;
    pub(super) const NOTIFY: u8 = 8;
    pub(super) const UNAWAITED: u8 = 16;
    pub(super) const HELD_BY_JOB: u8 = 32;
    /// Its payload is a counter that must move.
    pub(super) const COUNTS: u8 = 64;
    /// The counter has stood for as long as it may; the next beat shows whether it still does.
    pub(super) const COUNTER_DUE: u8 = 128;

    /// These flags with one bit set or cleared.
    pub(super) const fn with(self, bit: u8, is_set: bool) -> Self {
        SlotFlags(if is_set { self.0 | bit } else { self.0 & !bit })
    }

    /// Whether any of these bits is set.
    pub(super) const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}
