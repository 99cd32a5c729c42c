//! Delays before what has failed is tried again: twice as long after each failure, up to a minute.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The delay after the first failure.
pub(crate) const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(60);
/// The shortest delay that is partly random, or asked for by the other side.
pub(crate) const MIN_DELAY: Duration = Duration::from_millis(100);

/// The failures since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure, and gives the delay after it: [`FIRST_DELAY`], doubled with each failure, up to
    /// [`MAX_DELAY`].
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = FIRST_DELAY.saturating_mul(1 << self.failures.min(6)).min(MAX_DELAY);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Counts a failure, and gives the delay that the other side asked for, or else a random part of
    /// [`next_delay`](Backoff::next_delay), so that many servers do not come back together; within
    /// [`MIN_DELAY`] and [`MAX_DELAY`].
    pub(crate) fn next_random_delay(&mut self, asked: Option<Duration>) -> Duration {
        let delay = self.next_delay();
        asked.unwrap_or_else(|| delay.mul_f64(fraction())).clamp(MIN_DELAY, MAX_DELAY)
    }

    /// Forgets the failures.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_minute_and_no_further() {
        let (mut whole, mut random) = (Backoff::default(), Backoff::default());
        let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Duration::from_secs);
        for expected in expected {
            assert_eq!(whole.next_delay(), expected);
            let delay = random.next_random_delay(None);
            assert!((MIN_DELAY..=expected).contains(&delay), "{delay:?} of {expected:?}");
        }
        assert_eq!(random.next_random_delay(Some(Duration::from_secs(7))), Duration::from_secs(7));
        random.reset();
        assert!(random.next_random_delay(None) <= FIRST_DELAY);
    }
}
