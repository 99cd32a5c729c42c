//! Whether the rule by which agents are given their time makes sense.

use std::time::Duration;

use super::{LONGEST_DURATION, SHORTEST_STALL_AFTER};
use crate::error::Error;
use crate::tracker::arrival::{ArrivalPolicy, Bounds, Kind};

/// The thresholds of phi: below the least a silence is hardly unlikely, and beyond the most nothing changes any more.
const PHI_THRESHOLDS: std::ops::RangeInclusive<f64> = 1.0..=100.0;

/// Checks what the types leave open. What is learned must be over before an agent is forgotten.
pub(super) fn check_detector(policy: &ArrivalPolicy, forget_after: Duration) -> Result<(), Error> {
    let wrong = |option, fault: String| Err(Error::Option { option, fault });
    let ArrivalPolicy { kind, shortest, longest } = *policy;
    match kind {
        Kind::Fixed => return Ok(()),
        Kind::Phi { threshold } if !PHI_THRESHOLDS.contains(&threshold) => {
            return wrong("--phi-threshold", format!("{threshold} is not between 1 and 100"));
        }
        Kind::Phi { .. } => {}
        Kind::Chen(bounds) => check_bounds(&bounds, shortest)?,
    }
    if shortest < SHORTEST_STALL_AFTER || shortest > LONGEST_DURATION {
        let fault = format!("{shortest:?} is not between 10ms and 366 days");
        return wrong("--min-learned-stall-after", fault);
    }
    if longest < shortest || longest > forget_after {
        let fault = format!(
            "{longest:?} is not between the {shortest:?} of --min-learned-stall-after and the {forget_after:?} of \
             --forget-after"
        );
        return wrong("--max-learned-stall-after", fault);
    }
    Ok(())
}

fn check_bounds(bounds: &Bounds, shortest: Duration) -> Result<(), Error> {
    let Bounds { detect_within, mistake_every, corrected_within } = *bounds;
    let all = [
        ("--chen-mistake-every", mistake_every),
        ("--chen-detect-within", detect_within),
        ("--chen-corrected-within", corrected_within),
    ];
    for (option, bound) in all {
        if let Some(bound) = bound
            && (bound < SHORTEST_STALL_AFTER || bound > LONGEST_DURATION)
        {
            let fault = format!("{bound:?} is not between 10ms and 366 days");
            return Err(Error::Option { option, fault });
        }
    }
    if all.iter().all(|(_, bound)| bound.is_none()) {
        let fault = "needs to be told what to achieve: --chen-mistake-every, --chen-detect-within or \
                     --chen-corrected-within, one or more of them";
        return Err(Error::Option { option: "--detector chen", fault: fault.to_owned() });
    }
    if let Some(within) = detect_within.filter(|within| *within < shortest) {
        let fault = format!("{within:?} is less than the {shortest:?} of --min-learned-stall-after");
        return Err(Error::Option { option: "--chen-detect-within", fault });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn check(kind: Kind, shortest: Duration, longest: Duration) -> Result<(), String> {
        let policy = ArrivalPolicy { kind, shortest, longest };
        check_detector(&policy, DAY).map_err(|error| error.to_string())
    }

    fn chen(detect_within: Option<u64>, mistake_every: Option<u64>) -> Kind {
        let [detect_within, mistake_every] =
            [detect_within, mistake_every].map(|bound| bound.map(Duration::from_millis));
        Kind::Chen(Bounds { detect_within, mistake_every, corrected_within: None })
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_by_the_option_that_is_wrong() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let phi = |threshold| Kind::Phi { threshold };
        for (kind, shortest, longest, said) in [
            (phi(0.0), second, minute, "--phi-threshold: 0 is not between 1 and 100"),
            (phi(f64::NAN), second, minute, "--phi-threshold: NaN is not"),
            (phi(8.0), Duration::from_millis(1), minute, "--min-learned-stall-after: 1ms is not between"),
            (phi(8.0), minute, second, "--max-learned-stall-after: 1s is not between the 60s of"),
            (phi(8.0), second, 2 * DAY, "--max-learned-stall-after: 172800s is not between"),
            (chen(None, None), second, minute, "--detector chen: needs to be told what to achieve"),
            (chen(None, Some(1)), second, minute, "--chen-mistake-every: 1ms is not between"),
            (chen(Some(900), None), second, minute, "--chen-detect-within: 900ms is less than the 1s of"),
        ] {
            let refused = check(kind, shortest, longest).unwrap_err();
            assert!(refused.starts_with(said), "{refused}");
        }
        for kind in [Kind::Fixed, phi(8.0), chen(Some(2_000), None), chen(None, Some(3_600_000))] {
            check(kind, second, minute).unwrap();
        }
        check(Kind::Fixed, minute, second).unwrap();
    }
}
