//! The phi accrual failure detector: how improbable a silence is, by the gaps between the beats before it.
//!
//! N. Hayashibara, X. Défago, R. Yared, T. Katayama, "The φ Accrual Failure Detector", SRDS 2004. The gaps
//! between arrivals are taken to be normally distributed; φ(t) = −log₁₀ P(gap > t), and an agent is suspected
//! at φ ≥ 8. In the paper the distribution is that of the last 1,000 gaps. Here its mean and variance are
//! those of all gaps until there are 1,000 and then decay with a weight of 1/1000, so that an agent needs no
//! room for a window; an old gap fades instead of dropping out. The tests compare with the true window.
//!
//! The distribution is that of a process that always did what it does: an agent that has beaten evenly for a
//! minute would be suspected after its first garbage collection. As implementations of the detector do, an
//! acceptable pause is added to the mean, and the deviation has a minimum.

use std::f64::consts::{LN_10, LOG10_2};

use crate::base::time::nanos;
use crate::domain::tracker::detection::arrival::policy::Phi;

/// The longest silence that is not too improbable, by the mean of the gaps and their variance; all in
/// nanoseconds.
pub(super) fn silence(mean: f64, variance: f64, settings: &Phi) -> f64 {
    let Phi { threshold, acceptable_pause, min_deviation } = *settings;
    let deviation = variance.sqrt().max(nanos(min_deviation) as f64);
    mean + nanos(acceptable_pause) as f64 + deviations(threshold) * deviation
}

/// The number of standard deviations above its mean that a normal variable exceeds with a probability of ten
/// to the minus `threshold`.
///
/// M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions", 1964, formula 26.2.23: the error is
/// less than 0.00045 for probabilities up to a half. A larger probability counts as a half, one below 10⁻³⁰⁰
/// as 10⁻³⁰⁰.
pub(crate) fn deviations(threshold: f64) -> f64 {
    let threshold = threshold.clamp(LOG10_2, 300.0);
    let t = (2.0 * LN_10 * threshold).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    (t - above / below).max(0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_tail_of_the_normal_distribution_is_that_of_the_tables() {
        let table = [(LOG10_2, 0.0), (1.0, 1.281_55), (2.0, 2.326_35), (3.0, 3.090_23), (8.0, 5.612_00)];
        for (threshold, expected) in table {
            let found = deviations(threshold);
            assert!((found - expected).abs() < 0.001, "{threshold}: {found} and not {expected}");
        }
    }

    #[test]
    fn the_silence_is_the_published_formula_with_a_pause_and_a_minimum_of_the_deviation() {
        let (milli, threshold) = (1e6, 8.0);
        let settings = |pause, deviation| Phi {
            threshold,
            acceptable_pause: Duration::from_millis(pause),
            min_deviation: Duration::from_millis(deviation),
        };
        // Mean and deviation of the gaps, acceptable pause, minimum deviation, all in milliseconds: what follows.
        for (mean, deviation, pause, least, expected) in [
            (1_000.0, 50.0, 0, 0, 1_280.6),
            (1_000.0, 50.0, 3_000, 0, 4_280.6),
            (1_000.0, 50.0, 3_000, 100, 4_561.2),
            (1_000.0, 200.0, 3_000, 100, 5_122.4),
            (100.0, 0.0, 3_000, 100, 3_661.2),
            (100.0, 1.0, 0, 0, 105.6),
        ] {
            let variance = deviation * milli * deviation * milli;
            let found = silence(mean * milli, variance, &settings(pause, least)) / milli;
            assert!((found - expected).abs() < 0.1, "{found} and not {expected}");
        }
    }

    #[test]
    fn a_threshold_that_makes_no_sense_does_no_harm() {
        for threshold in [f64::NEG_INFINITY, -1.0, 0.0, f64::MAX, f64::INFINITY] {
            assert!(deviations(threshold).is_finite(), "{threshold}");
        }
    }
}
