//! The poll interval of the shared pages, from the shortest timeout among their processes.

use std::time::Duration;

use crate::base::time::MonoTime;

/// Polls within the shortest timeout of the agents with a page. A beat is seen at most one interval later
/// than through a socket.
const POLLS: u32 = 8;
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// How often the shortest timeout is determined again.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// The poll interval. It shortens at once, and lengthens when the timeouts of all processes are determined.
#[derive(Debug)]
pub(super) struct PollInterval {
    interval: Duration,
    asked_at: MonoTime,
}

impl PollInterval {
    pub(super) const fn new() -> Self {
        PollInterval { interval: MAX_INTERVAL, asked_at: MonoTime::START }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Shortens the interval to what a timeout of `stall_after` needs. Returns whether it changed.
    pub(super) fn shorten_for(&mut self, stall_after: Duration) -> bool {
        let interval = every(stall_after);
        let is_sooner = interval < self.interval;
        self.interval = self.interval.min(interval);
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
        let interval = shortest.map_or(MAX_INTERVAL, every);
        // At most doubles: what was promised at the shorter interval must hold until the next poll.
        self.interval = interval.min(self.interval * 2);
    }
}

fn every(stall_after: Duration) -> Duration {
    (stall_after / POLLS).clamp(MIN_INTERVAL, MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_shortest_deadline_within_bounds() {
        let mut pace = PollInterval::new();
        assert!(!pace.shorten_for(Duration::from_secs(3600)) && pace.interval() == MAX_INTERVAL);
        assert!(pace.shorten_for(Duration::from_secs(2)) && pace.interval() == Duration::from_millis(250));
        assert!(!pace.shorten_for(Duration::from_secs(5)));
        assert!(pace.shorten_for(Duration::from_millis(1)) && pace.interval() == MIN_INTERVAL);
        pace.set(Some(Duration::from_secs(4)));
        assert_eq!(pace.interval(), MIN_INTERVAL * 2);
        for (shortest, reached) in
            [(Some(Duration::from_secs(4)), 500), (None, 1_000), (Some(MAX_INTERVAL), 125)]
        {
            (0..20).for_each(|_| pace.set(shortest));
            assert_eq!(pace.interval(), Duration::from_millis(reached));
        }
    }

    #[test]
    fn everybody_is_asked_once_a_second() {
        let mut pace = PollInterval::new();
        let due: Vec<u64> = (0..3_000).filter(|ms| pace.is_due(MonoTime::from_millis(*ms))).collect();
        assert_eq!(due, [1_000, 2_000]);
    }
}
