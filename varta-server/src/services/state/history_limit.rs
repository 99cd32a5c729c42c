//! Limits on what agents can add to the history at any rate, so that none can push out everything else.

use crate::base::rate_limit::FixedWindow;
use crate::base::time::MonoTime;
use crate::domain::beat::Transport;
use crate::domain::tracker::Transition;

/// Rows a second for transitions that an agent can cause at any rate: a changed status, or a panic.
const REPORTS_PER_SECOND: u32 = 100;
/// Rows a second for agents in plaintext, which need no authentication.
const PLAIN_PER_SECOND: u32 = 100;

/// The limits on status reports and on agents in plaintext.
#[derive(Debug)]
pub(super) struct HistoryLimit {
    reports: PerSecondLimit,
    plain: PerSecondLimit,
}

impl HistoryLimit {
    pub(super) const fn new() -> Self {
        HistoryLimit {
            reports: PerSecondLimit::new(REPORTS_PER_SECOND, "changes of reported status"),
            plain: PerSecondLimit::new(PLAIN_PER_SECOND, "changes of agents in plaintext"),
        }
    }

    /// Whether a transition is within its limit; if so it is counted.
    pub(super) fn take(&mut self, transition: &Transition) -> bool {
        match (transition.agent.origin.transport(), transition.is_report()) {
            (Transport::Udp, _) => self.plain.take(transition.at),
            (Transport::Unix | Transport::Shm | Transport::Notify | Transport::SecureUdp, true) => {
                self.reports.take(transition.at)
            }
            (Transport::Unix | Transport::Shm | Transport::Notify | Transport::SecureUdp, false) => true,
        }
    }
}

/// A limit on rows per second, with the number of dropped ones.
#[derive(Debug)]
struct PerSecondLimit {
    /// What is limited, for the log.
    what: &'static str,
    window: FixedWindow,
    skipped: u64,
}

impl PerSecondLimit {
    const fn new(per_second: u32, what: &'static str) -> Self {
        PerSecondLimit { what, window: FixedWindow::new(per_second), skipped: 0 }
    }

    /// Whether one more row is within the limit at `at`. A second with dropped rows ends with a log line that
    /// says how many.
    fn take(&mut self, at: MonoTime) -> bool {
        if self.window.advance(at) {
            let PerSecondLimit { what, window, .. } = *self;
            let (per_second, skipped) = (window.per_second(), std::mem::take(&mut self.skipped));
            if skipped > 0 {
                tracing::warn!(
                    target: "varta::state",
                    skipped,
                    "{skipped} {what} are not in the history: more than {per_second} came in a second"
                );
            }
        }
        let has_room = self.window.has_room();
        if has_room {
            self.window.take();
        } else {
            self.skipped += 1;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;
    use crate::domain::tracker::tests::sample;
    use crate::domain::tracker::{Cause, Verdict};

    #[test]
    fn an_agent_that_cannot_make_up_its_mind_does_not_fill_the_history_and_hides_no_verdict() {
        let mut limit = HistoryLimit::new();
        let at = MonoTime::from_secs(5);
        let reported = sample::transition("worker").to(Verdict::Up(Status::Degraded), Cause::Reported).at(at);
        let written = (0..10_000).filter(|_| limit.take(&reported)).count();
        assert_eq!((written, limit.reports.skipped), (100, 9_900));
        assert!((0..1_000).all(|_| limit.take(&sample::transition("worker").at(at))));
        assert!(limit.take(&reported.at(MonoTime::from_secs(6))));
    }
}
