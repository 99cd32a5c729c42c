//! The poll interval of the shared pages, from the shortest timeout among their processes.

use std::time::Duration;

use crate::base::time::MonoTime;

/// Polls within the shortest timeout of the agents with a page. A beat is seen at most one interval later
/// than through a socket.
const LOOKS: u32 = 8;
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// How often the shortest timeout is determined again.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// The poll interval. It shortens at once, and lengthens when the timeouts of all processes are determined.
#[derive(Debug)]
pub(super) struct PollInterval {
    look_every: Duration,
    asked_at: MonoTime,
}

impl PollInterval {
    pub(super) const fn new() -> Self {
        PollInterval { look_every: MAX_INTERVAL, asked_at: MonoTime::START }
    }

    pub(super) const fn look_every(&self) -> Duration {
        self.look_every
    }

    /// Shortens the interval to what a timeout of `stall_after` needs. Returns whether it changed.
    pub(super) fn poll_now(&mut self, stall_after: Duration) -> bool {
        let look_every = every(stall_after);
        let is_sooner = look_every < self.look_every;
        self.look_every = self.look_every.min(look_every);
        is_sooner
    }

    /// Whether the shortest timeout is due to be determined again.
    pub(super) fn is_due(&mut self, now: MonoTime) -> bool {
        let is_due = now.since(self.asked_at) >= ASKED_EVERY;
        if is_due {
            self.asked_at = now;
        }
        is_due
    }

    /// Sets the shortest timeout of all; `None` without processes.
    pub(super) fn set(&mut self, shortest: Option<Duration>) {
        let look_every = shortest.map_or(MAX_INTERVAL, every);
        // At most doubles: what was promised at the shorter interval must hold until the next poll.
        self.look_every = look_every.min(self.look_every * 2);
    }
}

fn every(stall_after: Duration) -> Duration {
    (stall_after / LOOKS).clamp(MIN_INTERVAL, MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_shortest_deadline_within_bounds() {
        let mut pace = PollInterval::new();
        assert!(!pace.poll_now(Duration::from_secs(3600)) && pace.look_every() == MAX_INTERVAL);
        assert!(pace.poll_now(Duration::from_secs(2)) && pace.look_every() == Duration::from_millis(250));
        assert!(!pace.poll_now(Duration::from_secs(5)));
        assert!(pace.poll_now(Duration::from_millis(1)) && pace.look_every() == MIN_INTERVAL);
        pace.set(Some(Duration::from_secs(4)));
        assert_eq!(pace.look_every(), MIN_INTERVAL * 2);
        for (shortest, reached) in
            [(Some(Duration::from_secs(4)), 500), (None, 1_000), (Some(MAX_INTERVAL), 125)]
        {
            (0..20).for_each(|_| pace.set(shortest));
            assert_eq!(pace.look_every(), Duration::from_millis(reached));
        }
    }

    #[test]
    fn everybody_is_asked_once_a_second() {
        let mut pace = PollInterval::new();
        let due: Vec<u64> = (0..3_000).filter(|ms| pace.is_due(MonoTime::from_millis(*ms))).collect();
        assert_eq!(due, [1_000, 2_000]);
    }
}
