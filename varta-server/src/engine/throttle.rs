use crate::base::rate_limit::FixedWindow;
use crate::base::time::MonoTime;
use crate::domain::beat::Transport;
use crate::domain::tracker::Transition;

/// Lines a second for what an agent can bring about as often as it likes: that it reports another status than before, or
/// that it panicked. One that cannot make up its mind could fill a disk otherwise.
const REPORTS_PER_SECOND: u32 = 100;
/// Lines a second for agents in plaintext, which anybody can make up.
const PLAIN_PER_SECOND: u32 = 100;

/// What a sink takes of those changes that agents can bring about as often as they like, or make up.
#[derive(Debug)]
pub(crate) struct Allowances {
    reports: Allowance,
    plain: Allowance,
}

impl Allowances {
    /// With what is said in the log of either kind when some were not taken.
    pub(crate) fn new(reports: &'static str, plain: &'static str) -> Self {
        Allowances {
            reports: Allowance::new(REPORTS_PER_SECOND, reports),
            plain: Allowance::new(PLAIN_PER_SECOND, plain),
        }
    }

    /// Whether this one is to be taken.
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

/// How many lines of a kind were logged in the present second, and how many were not.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// What became of what, for the log.
    what_became: &'static str,
    window: FixedWindow,
    pub(crate) skipped: u64,
}

impl Allowance {
    pub(crate) fn new(per_second: u32, what_became: &'static str) -> Self {
        Allowance { what_became, window: FixedWindow::new(per_second), skipped: 0 }
    }

    /// Whether one more may be logged at `at`. A second in which some were not ends with a line that says how many.
    pub(crate) fn take(&mut self, at: MonoTime) -> bool {
        if self.window.advance(at) {
            let Allowance { what_became, window, .. } = *self;
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
