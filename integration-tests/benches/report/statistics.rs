//! Medians and percentiles of what was measured, and how two of them stand to each other.

use std::time::Duration;

use crate::Fallible;

/// The value below which a share of the samples lies. The samples are sorted by it.
pub(crate) fn percentile<T: Copy + PartialOrd>(samples: &mut [T], share: f64) -> Option<T> {
    samples.sort_unstable_by(|left, right| left.partial_cmp(right).unwrap_or(std::cmp::Ordering::Equal));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the samples")]
    let index = (samples.len() as f64 * share) as usize;
    samples.get(index.min(samples.len().checked_sub(1)?)).copied()
}

pub(crate) fn median<T: Copy + PartialOrd>(samples: &mut [T]) -> Option<T> {
    percentile(samples, 0.5)
}

/// What was measured beside a yardstick, in rounds.
pub(crate) struct Comparison {
    /// The median of the rounds.
    pub(crate) ours: f64,
    /// The same of the yardstick.
    pub(crate) yardstick: f64,
    /// The median of the rounds' ratios: the machine's moods hit both.
    pub(crate) ratio: f64,
}

/// Compares with the best of several yardsticks, and tells which that is.
pub(crate) type WithBest = fn(&[f64], &[Vec<f64>]) -> Fallible<(usize, Comparison)>;

impl Comparison {
    /// Compares what was measured once.
    pub(crate) fn once(ours: f64, yardstick: f64) -> Self {
        Comparison { ours, yardstick, ratio: ours / yardstick }
    }

    /// Compares round by round.
    pub(crate) fn of(ours: &[f64], yardstick: &[f64]) -> Fallible<Self> {
        let mut ratios: Vec<f64> =
            ours.iter().zip(yardstick).map(|(ours, yardstick)| ours / yardstick).collect();
        let median_of = |samples: &[f64]| median(&mut samples.to_vec());
        match (median_of(ours), median_of(yardstick), median(&mut ratios)) {
            (Some(ours), Some(yardstick), Some(ratio)) => Ok(Comparison { ours, yardstick, ratio }),
            _ => Err("no samples".into()),
        }
    }

    /// Compares with the yardstick whose median is the highest, and tells which that is.
    pub(crate) fn with_highest(ours: &[f64], yardsticks: &[Vec<f64>]) -> Fallible<(usize, Self)> {
        Self::with_best(ours, yardsticks, |median| median)
    }

    /// The same with the lowest.
    pub(crate) fn with_lowest(ours: &[f64], yardsticks: &[Vec<f64>]) -> Fallible<(usize, Self)> {
        Self::with_best(ours, yardsticks, |median| -median)
    }

    fn with_best(ours: &[f64], yardsticks: &[Vec<f64>], goodness: fn(f64) -> f64) -> Fallible<(usize, Self)> {
        let all = yardsticks.iter().map(|yardstick| Self::of(ours, yardstick));
        let all: Vec<Self> = all.collect::<Fallible<_>>()?;
        let best = all
            .into_iter()
            .enumerate()
            .max_by(|(_, left), (_, right)| goodness(left.yardstick).total_cmp(&goodness(right.yardstick)));
        Ok(best.ok_or("no yardstick")?)
    }
}

/// Events a second.
pub(crate) fn rate(events: u64, time: Duration) -> f64 {
    events as f64 / time.as_secs_f64()
}

/// `123 ns`.
pub(crate) fn show_nanos(nanos: f64) -> String {
    format!("{nanos:.0} ns")
}

/// `1.23 M/s` or `123 k/s`.
pub(crate) fn show_rate(rate: f64) -> String {
    if rate >= 1e6 { format!("{:.2} M/s", rate / 1e6) } else { format!("{:.0} k/s", rate / 1e3) }
}
