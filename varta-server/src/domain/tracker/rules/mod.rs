//! The rules of the tracker, one file each: an `impl Tracker` over the state in [`state`](super::state).

mod adaptive_timeouts;
mod beats;
mod control;
mod eviction;
mod exits;
mod expiry;
mod false_positives;
pub(super) mod forgetting;
pub(super) mod handover;
pub(super) mod jobs;
mod mass_silence;
pub(super) mod named;
mod notifications;
mod persistence;
mod progress;
mod remote_identity;
mod succession;
