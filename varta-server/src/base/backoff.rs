use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// Between two tries: doubled each time, and of that a random part, so that many servers do not come back together.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How long to wait before something is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    tries: u32,
}

impl Pause {
    /// The next pause: as long as was asked for, else a random part of a span that doubles each time.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let span = FIRST_PAUSE.saturating_mul(1 << self.tries.min(6)).min(LONGEST_PAUSE);
        self.tries = self.tries.saturating_add(1);
        asked.unwrap_or_else(|| span.mul_f64(fraction())).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    /// Forgets that anything went wrong.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// A random number from 0 to 1; where the system has none, one half.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(ring::error::Unspecified) => 0.5,
    }
}
