//! Quantiles of any number of durations in constant memory: a histogram with log-linear buckets, as in
//! HdrHistogram.

use std::time::Duration;

use crate::base::time::nanos;

/// The binary logarithm of the buckets for each power of two: quantiles are exact to within a 256th.
const PARTS_BITS: u32 = 7;
const PARTS: usize = 1 << PARTS_BITS;
/// The number of buckets: one for each number below [`PARTS`], and [`PARTS`] for each power of two above.
const PLACES: usize = PARTS * (64 - PARTS_BITS as usize + 1);

/// A histogram of durations.
#[derive(Clone, Debug)]
pub(super) struct Quantiles {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    least: u64,
    most: u64,
}

impl Default for Quantiles {
    fn default() -> Self {
        Quantiles { counts: vec![0; PLACES], count: 0, sum: 0, least: u64::MAX, most: 0 }
    }
}

impl Quantiles {
    pub(super) fn add(&mut self, time: Duration) {
        let time = nanos(time);
        self.counts[place(time)] += 1;
        self.count += 1;
        self.sum += u128::from(time);
        self.least = self.least.min(time);
        self.most = self.most.max(time);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// `None` without durations.
    pub(super) fn mean(&self) -> Option<Duration> {
        let mean = self.sum.checked_div(u128::from(self.count))?;
        u64::try_from(mean).ok().map(Duration::from_nanos)
    }

    pub(super) fn most(&self) -> Option<Duration> {
        (self.count > 0).then_some(Duration::from_nanos(self.most))
    }

    /// Durations in seconds, from the shortest on, each with the share of all that are longer, or as long; to within a
    /// 256th.
    pub(super) fn tail(&self) -> Vec<(f64, f64)> {
        let mut longer = self.count;
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled
            .map(|(place, count)| {
                let time = Duration::from_nanos(middle(place).clamp(self.least, self.most).max(1));
                let share = longer as f64 / self.count as f64;
                longer -= count;
                (time.as_secs_f64(), share)
            })
            .collect()
    }

    /// The duration that `percent` of a hundred do not exceed, to within a 256th.
    pub(super) fn percentile(&self, percent: u64) -> Option<Duration> {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        })?;
        Some(Duration::from_nanos(middle(place).clamp(self.least, self.most)))
    }
}

fn place(time: u64) -> usize {
    let shift = (u64::BITS - time.leading_zeros()).saturating_sub(PARTS_BITS + 1);
    // The leading one of a shifted number selects the first bucket of its power of two.
    let part = usize::try_from(time >> shift).expect("it has eight bits");
    shift as usize * PARTS + part
}

/// The middle of a bucket.
fn middle(place: usize) -> u64 {
    let shift = (place / PARTS).saturating_sub(1);
    let part = (place - shift * PARTS) as u64;
    (part << shift) + (1_u64 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order_and_near_what_they_stand_for() {
        for time in (0..64).flat_map(|bit| [1_u64 << bit, (1_u64 << bit) + 1, u64::MAX >> bit]) {
            let found = middle(place(time));
            assert!(found.abs_diff(time) <= time / 128, "{time} {found}");
            assert!(place(time) < PLACES && place(time.saturating_sub(1)) <= place(time), "{time}");
        }
        assert_eq!(place(0), 0);
    }

    #[test]
    fn the_tail_begins_with_all_and_ends_with_the_longest() {
        let mut times = Quantiles::default();
        assert_eq!(times.tail(), []);
        for millis in [100, 100, 100, 400] {
            times.add(Duration::from_millis(millis));
        }
        let tail = times.tail();
        assert_eq!(tail.iter().map(|(_, share)| *share).collect::<Vec<_>>(), [1.0, 0.25]);
        assert!((tail[0].0 - 0.1).abs() < 0.001 && (tail[1].0 - 0.4).abs() < 0.004, "{tail:?}");
    }

    #[test]
    fn of_a_thousand_times_the_median_is_the_middle_one() {
        let mut times = Quantiles::default();
        assert_eq!((times.mean(), times.most(), times.percentile(50)), (None, None, None));
        for millis in 1..=1_000 {
            times.add(Duration::from_millis(millis));
        }
        let near = |found: Option<Duration>, expected: f64| {
            (found.unwrap().as_secs_f64() / expected - 1.0).abs() < 1.0 / 128.0
        };
        assert!(near(times.percentile(50), 0.5) && near(times.percentile(99), 0.99));
        assert_eq!(times.mean(), Some(Duration::from_micros(500_500)));
        assert_eq!((times.most(), times.count()), (Some(Duration::from_secs(1)), 1_000));
        assert_eq!(times.percentile(100), times.most());
    }
}
