//! Hooks for tests.

use std::time::Instant;

use varta_proto::Status;

use super::handle::Varta;
use crate::fork::ProcessLife;
use crate::outcome::BeatOutcome;
use crate::transport::BeatTransport;

/// Hooks for tests (feature `test-hooks`). Not for production.
#[doc(hidden)]
impl<T: BeatTransport> Varta<T> {
    /// Sends a beat with `now` as the time, which may be earlier than that of the beat before.
    pub fn beat_at_for_test(&mut self, now: Instant, status: Status, payload: u32) -> BeatOutcome {
        self.reject(status).unwrap_or_else(|| self.beat_at(now, status, payload))
    }

    /// Sets the nonce of the last beat.
    pub const fn set_nonce_for_test(&mut self, nonce: u64) {
        self.nonce = nonce;
    }

    /// Sets the process that connected the handle: with any `pid` other than this process's, the next beat
    /// detects a fork.
    pub fn set_connect_pid_for_test(&mut self, pid: u32) {
        self.process_life = ProcessLife::current();
        if pid != self.process_life.pid() {
            self.process_life.invalidate();
        }
    }
}
