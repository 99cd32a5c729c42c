//! The failure detector of Chen, Toueg and Aguilera: from bounds on its quality of service it computes a
//! deadline.
//!
//! W. Chen, S. Toueg, M. K. Aguilera, "On the Quality of Service of Failure Detectors", IEEE Transactions on
//! Computers 51(5), 2002. Of their detectors it is NFD-E: the next beat is expected when the last ones
//! suggest, and waited for by a safety margin α more. Three things differ. They choose the interval of beats
//! and this server cannot, so only α is computed. They estimate when a beat was sent from its sequence
//! number; here its timestamp says so. And they take every beat to be lost with the same probability, while
//! here that of a beat after a lost one is estimated apart: networks lose in runs.
//!
//! Nothing is assumed of the distribution of delays but their variance: by the one-sided (Cantelli)
//! inequality a delay is more than x above its mean with a probability of at most V / (V + x²). That makes a
//! bound that holds for every distribution, and is mostly far from what happens.

use std::time::Duration;

use crate::base::time::nanos;
use crate::domain::tracker::detection::arrival::policy::{Bounds, NoEstimate};

/// How an agent's beats arrive; all times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The mean time between two beats as sent.
    pub(super) interval: f64,
    /// The mean square of the error of the expected arrival time.
    pub(super) variance: f64,
    /// The share of beats that are lost.
    pub(super) loss: f64,
    /// The share of beats that are lost among those after a lost one.
    pub(super) loss_again: f64,
}

/// The minimum variance: no host's scheduler is more precise than half a millisecond, whatever a quiet minute
/// suggests.
const MIN_VARIANCE: f64 = 500_000.0 * 500_000.0;
/// The maximum number of beats lost in a row that is taken into account. Leaving out the others makes the
/// bound on the rate of mistakes larger, never smaller.
const MAX_BEATS: u32 = 64;
/// The number of halvings in the search for the margin: of a second they leave a microsecond.
const HALVINGS: u32 = 20;

/// The margin α in nanoseconds: how much longer than expected an agent is waited for.
///
/// # Errors
///
/// [`NoEstimate::Impossible`] when no margin within the detection time meets the other bounds.
pub(super) fn margin(link: &Link, bounds: &Bounds, longest: f64) -> Result<f64, NoEstimate> {
    let nanos = |duration: Option<Duration>| duration.map(|duration| nanos(duration) as f64);
    let within = nanos(bounds.detect_within).map(|within| within - link.interval);
    let mistake_every = nanos(bounds.mistake_every);
    let corrected_within = nanos(bounds.corrected_within);
    let meets = |margin: f64| {
        mistake_every.is_none_or(|least| link.mistake_every(margin) >= least)
            && corrected_within.is_none_or(|most| link.corrected_within(margin) <= most)
    };
    let widest = longest - link.interval;
    let asks_for_more = mistake_every.is_some() || corrected_within.is_some();
    let least = if !asks_for_more {
        within.map_or(widest, |within| within.min(widest))
    } else {
        least_that(meets, link.interval, widest).ok_or(NoEstimate::Impossible { least: None })?
    };
    if least <= 0.0 || within.is_some_and(|within| least > within) {
        // Never less than an interval: before it has passed no beat is missing.
        let least = Duration::from_nanos((link.interval + least.max(0.0)).ceil() as u64);
        return Err(NoEstimate::Impossible { least: Some(least) });
    }
    Ok(least)
}

impl Link {
    /// The minimum time between two mistakes with this margin: η/β of the paper's theorem on NFD-U.
    fn mistake_every(&self, margin: f64) -> f64 {
        let variance = self.variance.max(MIN_VARIANCE);
        // A mistake requires that this beat and every later one that would still be in time is lost or late.
        let mut all_fail = 1.0;
        let mut loss = self.loss;
        for beat in 0..MAX_BEATS {
            let left = margin - f64::from(beat) * self.interval;
            if left <= 0.0 {
                break;
            }
            let square = left * left;
            all_fail *= (variance + loss * square) / (variance + square);
            loss = self.loss_again;
        }
        self.interval / all_fail
    }

    /// The maximum duration of a mistake with this margin: η/γ of the same theorem.
    fn corrected_within(&self, margin: f64) -> f64 {
        let variance = self.variance.max(MIN_VARIANCE);
        let square = (margin + self.interval) * (margin + self.interval);
        self.interval * (variance + square) / ((1.0 - self.loss) * square)
    }
}

/// The smallest number above zero and up to `most` for which `holds` is true, if it is then true for all
/// larger numbers. The search starts at `first` and goes up: large margins take long to compute, and are
/// rarely needed.
fn least_that(holds: impl Fn(f64) -> bool, first: f64, most: f64) -> Option<f64> {
    let (mut too_small, mut enough) = (0.0, first.min(most));
    while enough > 0.0 && !holds(enough) {
        if enough >= most {
            return None;
        }
        (too_small, enough) = (enough, (2.0 * enough).min(most));
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(too_small, enough);
        if holds(middle) { enough = middle } else { too_small = middle }
    }
    (enough > 0.0).then_some(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: f64 = 1e9;
    const MAX_TIMEOUT_NS: f64 = 60.0 * SECOND;

    fn link(deviation: f64, loss: f64) -> Link {
        let deviation = deviation * SECOND;
        Link { interval: SECOND, variance: deviation * deviation, loss, loss_again: loss }
    }

    fn an_hour() -> Bounds {
        Bounds { mistake_every: Some(Duration::from_secs(3_600)), ..Bounds::default() }
    }

    #[test]
    fn the_margin_grows_with_jitter_and_with_loss() {
        let margin = |deviation, loss| margin(&link(deviation, loss), &an_hour(), MAX_TIMEOUT_NS).unwrap();
        assert!(margin(0.001, 1e-6) < margin(0.01, 1e-6));
        assert!(margin(0.01, 1e-6) < margin(0.01, 0.1));
        assert!(margin(0.01, 0.1) < margin(0.01, 0.3));
    }

    #[test]
    fn the_margin_is_the_least_that_keeps_to_the_bound() {
        let link = link(0.02, 0.05);
        let margin = margin(&link, &an_hour(), MAX_TIMEOUT_NS).unwrap();
        assert!(link.mistake_every(margin) >= 3_600.0 * SECOND);
        assert!(link.mistake_every(margin - 0.001 * SECOND) < 3_600.0 * SECOND);
    }

    #[test]
    fn with_a_tenth_lost_no_mistake_in_an_hour_takes_four_beats_of_patience() {
        // 0.1⁴ is once in 10,000 beats, 0.1³ once in 1,000: the margin reaches beyond the third interval.
        let margin = margin(&link(0.001, 0.1), &an_hour(), MAX_TIMEOUT_NS).unwrap();
        assert!(margin > 3.0 * SECOND && margin < 3.2 * SECOND, "{margin}");
    }

    #[test]
    fn losses_in_a_row_make_for_more_patience_than_as_many_by_themselves() {
        let in_a_row = Link { loss_again: 0.5, ..link(0.001, 0.1) };
        let margin = |link| margin(&link, &an_hour(), MAX_TIMEOUT_NS).unwrap();
        assert!(margin(in_a_row) > margin(link(0.001, 0.1)) + 4.0 * SECOND, "{}", margin(in_a_row));
    }

    #[test]
    fn a_time_of_detection_alone_is_used_up() {
        let bounds = Bounds { detect_within: Some(Duration::from_secs(3)), ..Bounds::default() };
        assert_eq!(margin(&link(0.01, 0.01), &bounds, MAX_TIMEOUT_NS), Ok(2.0 * SECOND));
    }

    #[test]
    fn what_is_impossible_is_said_with_what_would_be_possible() {
        let bounds = Bounds { detect_within: Some(Duration::from_secs(2)), ..an_hour() };
        let Err(NoEstimate::Impossible { least: Some(least) }) =
            margin(&link(0.001, 0.3), &bounds, MAX_TIMEOUT_NS)
        else {
            panic!("a third of the beats is lost, and two seconds are two beats");
        };
        assert!(least > Duration::from_secs(7) && least < Duration::from_secs(9), "{least:?}");
        let bounds = Bounds { detect_within: Some(least), ..bounds };
        assert!(margin(&link(0.001, 0.3), &bounds, MAX_TIMEOUT_NS).is_ok());
        assert_eq!(
            margin(&link(0.001, 1.0), &bounds, MAX_TIMEOUT_NS),
            Err(NoEstimate::Impossible { least: None }),
            "nothing arrives at all"
        );
    }

    #[test]
    fn detection_within_less_than_an_interval_is_impossible() {
        let bounds = Bounds { detect_within: Some(Duration::from_millis(900)), ..Bounds::default() };
        let least = Some(Duration::from_secs(1));
        assert_eq!(margin(&link(0.01, 0.0), &bounds, MAX_TIMEOUT_NS), Err(NoEstimate::Impossible { least }));
    }
}
