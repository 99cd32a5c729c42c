//! The detectors that are measured, behind one trait: they observe beats as they are read, and give a
//! deadline.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::{MonoTime, nanos};
use crate::domain::tracker::detection::arrival::estimator::Arrivals;
use crate::domain::tracker::detection::arrival::{ArrivalPolicy, Bounds, Kind, Phi, deviations};

/// The window of the phi detector in the paper.
const PHI_WINDOW: usize = 1_000;
pub(super) trait Detector {
    /// Observes a beat that is newer than all before.
    fn observe(&mut self, read_at: MonoTime, nonce: u64, timestamp: u64);

    /// How long after the newest beat the agent is suspected; `None` when there is no estimate yet.
    fn silence(&self) -> Option<Duration>;
}

/// The phi accrual detector of the paper: the last thousand gaps, one by one.
#[derive(Default)]
pub(super) struct PublishedPhi {
    last: Option<MonoTime>,
    gaps: VecDeque<u64>,
    sum: u64,
    squares: u128,
}

impl Detector for PublishedPhi {
    fn observe(&mut self, read_at: MonoTime, _nonce: u64, _timestamp: u64) {
        if let Some(last) = self.last.replace(read_at) {
            // Integers, so that nothing remains of a gap that drops out of the window.
            let gap = nanos(read_at.since(last));
            self.gaps.push_back(gap);
            self.sum += gap;
            self.squares += u128::from(gap) * u128::from(gap);
            if self.gaps.len() > PHI_WINDOW
                && let Some(old) = self.gaps.pop_front()
            {
                self.sum -= old;
                self.squares -= u128::from(old) * u128::from(old);
            }
        }
    }

    fn silence(&self) -> Option<Duration> {
        let count = self.gaps.len() as u128;
        if count == 0 {
            return None;
        }
        let sum = u128::from(self.sum);
        let mean = self.sum as f64 / count as f64;
        let variance = (self.squares * count - sum * sum) as f64 / (count * count) as f64;
        let silence = mean + deviations(Phi::PUBLISHED.threshold) * variance.sqrt();
        Some(Duration::from_secs_f64(silence / 1e9))
    }
}

/// A detector of this server, as the tracker uses it.
pub(super) struct Ours {
    policy: ArrivalPolicy,
    fixed: Duration,
    arrivals: Option<Arrivals>,
}

impl Ours {
    pub(super) fn new(kind: Kind, fixed: Duration) -> Self {
        let policy =
            ArrivalPolicy { kind, shortest: Duration::from_millis(1), longest: Duration::from_secs(600) };
        Ours { policy, fixed, arrivals: None }
    }

    /// The same timeout for all agents.
    pub(super) fn fixed(silence: Duration) -> Self {
        Ours::new(Kind::Fixed, silence)
    }

    pub(super) fn phi(settings: Phi) -> Self {
        Ours::new(Kind::Phi(settings), Duration::from_secs(5))
    }

    /// The whole detection time is used up.
    pub(super) fn within(detect_within: Duration) -> Self {
        let bounds = Bounds { detect_within: Some(detect_within), ..Bounds::default() };
        Ours::new(Kind::Chen(bounds), detect_within)
    }
}

impl Detector for Ours {
    fn observe(&mut self, read_at: MonoTime, nonce: u64, timestamp: u64) {
        match &mut self.arrivals {
            Some(arrivals) => arrivals.observe(read_at, nonce, timestamp),
            none => *none = self.policy.learns().then(|| Arrivals::new(read_at, nonce, timestamp)),
        }
    }

    fn silence(&self) -> Option<Duration> {
        Some(self.policy.stall_after(self.arrivals.as_ref(), self.fixed))
    }
}
