//! What tests need to force.

use std::time::Instant;

use varta_proto::Status;

use super::handle::Varta;
use crate::fork::ProcessLife;
use crate::outcome::BeatOutcome;
use crate::transport::BeatTransport;

/// What tests need to force (feature `test-hooks`). Not for production.
impl<T: BeatTransport> Varta<T> {
    /// Beats as if the clock read `now`, which may be earlier than the beat before.
    pub fn beat_at_for_test(&mut self, now: Instant, status: Status, payload: u32) -> BeatOutcome {
        self.reject(status).unwrap_or_else(|| self.beat_at(now, status, payload))
    }

    /// Has the last beat been the one with this nonce.
    pub const fn set_nonce_for_test(&mut self, nonce: u64) {
        self.nonce = nonce;
    }

    /// Has the handle been connected by process `pid`: by any other than this one, and the next beat notices a fork.
    pub fn set_connect_pid_for_test(&mut self, pid: u32) {
        self.process_life = ProcessLife::current();
        if pid != self.process_life.pid() {
            self.process_life.invalidate();
        }
    }
}
