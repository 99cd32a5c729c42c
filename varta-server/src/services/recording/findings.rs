//! The counts that a replay collects for its report.

use std::time::Duration;

use crate::services::recording::quantiles::Quantiles;

/// The false positives about one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mistaken {
    pub(super) agent: String,
    pub(super) mistakes: u64,
    pub(super) longest: Duration,
}

/// The results of a replay.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Process lifetimes, and agents of other hosts.
    pub(super) agents: u64,
    pub(super) accepted: u64,
    pub(super) lost: u64,
    /// The time from each beat to the moment at which its being the last would have been detected.
    pub(super) detection: Quantiles,
    pub(super) stalled: u64,
    pub(super) taken_back: u64,
    pub(super) down: u64,
    /// The durations of the false positives.
    pub(super) mistakes: Quantiles,
    /// The time for which agents were up, summed over all, in nanoseconds.
    pub(super) up_nanos: u128,
    /// The agents with false positives.
    pub(super) mistaken: Vec<Mistaken>,
}
