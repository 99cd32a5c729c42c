use std::time::Duration;

use crate::services::recording::quantiles::Quantiles;

/// The mistakes about one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mistaken {
    pub(super) agent: String,
    pub(super) mistakes: u64,
    pub(super) longest: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Process lives, and agents of other hosts.
    pub(super) agents: u64,
    pub(super) accepted: u64,
    pub(super) lost: u64,
    /// From each beat to the moment at which its being the last would have been found out.
    pub(super) detection: Quantiles,
    pub(super) stalled: u64,
    pub(super) taken_back: u64,
    pub(super) down: u64,
    /// How long each of them lasted.
    pub(super) mistakes: Quantiles,
    /// For how long agents were up, all taken together, in nanoseconds.
    pub(super) up_nanos: u128,
    /// The agents about which there were mistakes.
    pub(super) mistaken: Vec<Mistaken>,
}
