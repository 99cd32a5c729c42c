//! The counters of this process's handles, for the program's own metrics.
//!
//! The counters use the facade of the crate `metrics`, with the recorder that the program has installed.
//! Looking up a counter allocates, so a handle looks up all of them when it is created; counting is then an
//! addition. Without the feature `metrics` the type is empty and its methods do nothing.

#[cfg(feature = "metrics")]
use metrics::Counter;

use crate::outcome::BeatOutcome;

/// The counters of one handle. All handles of a process count into the same counters.
#[cfg(feature = "metrics")]
pub(crate) struct Counters {
    sent: Counter,
    dropped: Counter,
    failed: Counter,
    clock_regressions: Counter,
    fork_recoveries: Counter,
    reconnects: Counter,
}

/// Stands in for the counters without the feature `metrics`.
#[cfg(not(feature = "metrics"))]
pub(crate) struct Counters;

#[cfg(feature = "metrics")]
impl Counters {
    /// Looks up the counters in the installed recorder; without a recorder they count nothing.
    pub(crate) fn from_recorder() -> Self {
        const BEATS: &str = "varta_client_beats_total";
        const CLOCK_REGRESSIONS: &str = "varta_client_clock_regression_total";
        const FORK_RECOVERIES: &str = "varta_client_fork_recoveries_total";
        const RECONNECTS: &str = "varta_client_reconnects_total";

        metrics::describe_counter!(BEATS, "Beats that this process made, by what became of them.");
        metrics::describe_counter!(CLOCK_REGRESSIONS, "Beats for which the clock had gone backwards.");
        metrics::describe_counter!(
            FORK_RECOVERIES,
            "Handles that began a session of their own after a fork."
        );
        metrics::describe_counter!(RECONNECTS, "Connections that were replaced, other than after a fork.");
        Self {
            sent: metrics::counter!(BEATS, "outcome" => "sent"),
            dropped: metrics::counter!(BEATS, "outcome" => "dropped"),
            failed: metrics::counter!(BEATS, "outcome" => "failed"),
            clock_regressions: metrics::counter!(CLOCK_REGRESSIONS),
            fork_recoveries: metrics::counter!(FORK_RECOVERIES),
            reconnects: metrics::counter!(RECONNECTS),
        }
    }

    /// Creates counters that count nothing.
    pub(crate) const fn noop() -> Self {
        Self {
            sent: Counter::noop(),
            dropped: Counter::noop(),
            failed: Counter::noop(),
            clock_regressions: Counter::noop(),
            fork_recoveries: Counter::noop(),
            reconnects: Counter::noop(),
        }
    }

    #[inline]
    pub(crate) fn count_beat(&self, outcome: BeatOutcome) {
        let counter = match outcome {
            BeatOutcome::Sent => &self.sent,
            BeatOutcome::Dropped(_) => &self.dropped,
            BeatOutcome::Failed(_) => &self.failed,
        };
        counter.increment(1);
    }

    pub(crate) fn count_clock_regression(&self) {
        self.clock_regressions.increment(1);
    }

    pub(crate) fn count_fork_recovery(&self) {
        self.fork_recoveries.increment(1);
    }

    pub(crate) fn count_reconnect(&self) {
        self.reconnects.increment(1);
    }
}

#[cfg(not(feature = "metrics"))]
impl Counters {
    pub(crate) const fn from_recorder() -> Self {
        Self
    }

    pub(crate) const fn noop() -> Self {
        Self
    }

    #[inline]
    pub(crate) const fn count_beat(&self, _: BeatOutcome) {}

    pub(crate) const fn count_clock_regression(&self) {}

    pub(crate) const fn count_fork_recovery(&self) {}

    pub(crate) const fn count_reconnect(&self) {}
}
