//! Medians and percentiles of what was measured.

use std::time::Duration;

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

/// Events a second.
pub(crate) fn rate(events: u64, time: Duration) -> f64 {
    events as f64 / time.as_secs_f64()
}

/// `1.23 M/s` or `123 k/s`.
pub(crate) fn show_rate(rate: f64) -> String {
    if rate >= 1e6 { format!("{:.2} M/s", rate / 1e6) } else { format!("{:.0} k/s", rate / 1e3) }
}
