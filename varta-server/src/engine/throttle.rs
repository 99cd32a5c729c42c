use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Transport;
use crate::domain::describe::is_report;
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
        match (transition.agent.origin.transport(), is_report(transition)) {
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
    per_second: u32,
    /// What became of what, for the log.
    what_became: &'static str,
    since: MonoTime,
    logged: u32,
    pub(crate) skipped: u64,
}

impl Allowance {
    pub(crate) fn new(per_second: u32, what_became: &'static str) -> Self {
        Allowance { per_second, what_became, since: MonoTime::START, logged: 0, skipped: 0 }
    }

    /// Whether one more may be logged at `at`. A second in which some were not ends with a line that says how many.
    pub(crate) fn take(&mut self, at: MonoTime) -> bool {
        let Allowance { per_second, what_became, skipped, .. } = *self;
        if at.since(self.since) >= Duration::from_secs(1) {
            if skipped > 0 {
                tracing::warn!(
                    target: "varta::log",
                    skipped,
                    "{skipped} {what_became}: more than {per_second} came in a second"
                );
            }
            *self = Allowance { since: at, ..Allowance::new(per_second, what_became) };
        }
        let logs = self.logged < per_second;
        if logs {
            self.logged += 1;
        } else {
            self.skipped += 1;
        }
        logs
    }
}
