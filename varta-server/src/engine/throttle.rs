//! Limits on what agents can make a subscriber write, so that no agent can fill a disk or hide other
//! transitions.

use crate::base::rate_limit::FixedWindow;
use crate::base::time::MonoTime;
use crate::domain::beat::Transport;
use crate::domain::tracker::Transition;

/// Lines a second for transitions that an agent can cause at any rate: a changed status, or a panic. One that
/// keeps changing its status could fill a disk otherwise.
const REPORTS_PER_SECOND: u32 = 100;
/// Lines a second for agents in plaintext, which need no authentication.
const PLAIN_PER_SECOND: u32 = 100;

/// The limits on status reports and on agents in plaintext.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    reports: PerSecondLimit,
    plain: PerSecondLimit,
}

impl LogThrottle {
    /// Takes the text with which dropped transitions of each kind are logged.
    pub(crate) fn new(reports: &'static str, plain: &'static str) -> Self {
        LogThrottle {
            reports: PerSecondLimit::new(REPORTS_PER_SECOND, reports),
            plain: PerSecondLimit::new(PLAIN_PER_SECOND, plain),
        }
    }

    /// Whether a transition is within its limit; if so it is counted.
    pub(crate) fn take(&mut self, transition: &Transition) -> bool {
        match (transition.agent.origin.transport(), transition.is_report()) {
            (Transport::Udp, _) => self.plain.take(transition.at),
            (Transport::Unix | Transport::Shm | Transport::SecureUdp, true) => {
                self.reports.take(transition.at)
            }
            (Transport::Unix | Transport::Shm | Transport::SecureUdp, false) => true,
        }
    }
}

/// A limit on lines per second, with the number of dropped ones.
#[derive(Debug)]
pub(crate) struct PerSecondLimit {
    /// The fate of dropped lines, for the log.
    what_became: &'static str,
    window: FixedWindow,
    pub(crate) skipped: u64,
}

impl PerSecondLimit {
    pub(crate) fn new(per_second: u32, what_became: &'static str) -> Self {
        PerSecondLimit { what_became, window: FixedWindow::new(per_second), skipped: 0 }
    }

    /// Whether one more line is within the limit at `at`. A second with dropped lines ends with a log line
    /// that says how many.
    pub(crate) fn take(&mut self, at: MonoTime) -> bool {
        if self.window.advance(at) {
            let PerSecondLimit { what_became, window, .. } = *self;
            let (per_second, skipped) = (window.per_second(), std::mem::take(&mut self.skipped));
            if skipped > 0 {
                tracing::warn!(
                    target: "varta::log",
                    skipped,
                    "{skipped} {what_became}: more than {per_second} came in a second"
                );
            }
        }
        let logs = self.window.has_room();
        if logs {
            self.window.take();
        } else {
            self.skipped += 1;
        }
        logs
    }
}
