//! The options of the detectors: how agents that request no timeout get one.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::base::error::Error;
use crate::base::limits::{MAX_DURATION, MIN_STALL_AFTER};
use crate::base::options::{OptionFaults, parse_duration};
use crate::domain::tracker::arrival::{ArrivalPolicy, Bounds, Kind, Phi};

/// By which rule an agent that asks for nothing is called silent. A group of options, for each command that
/// tracks agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Args)]
pub struct DetectorArgs {
    /// Timeout of agents that request none
    ///
    /// --stall-after for all, or learned from the agent's own beats. `phi` uses the gaps between beats, `chen`
    /// the shortest timeout that keeps to --chen-*. Until the detector has learned enough of an agent, and
    /// where the bounds cannot be met, the timeout is --stall-after, or three of the intervals that the agent
    /// announces.
    #[arg(long, env = "VARTA_DETECTOR", value_name = "RULE", value_enum, default_value_t)]
    pub detector: Detector,

    /// For phi: a silence is too long once its probability is below 10^-N, N from 1 to 100 [default: 8]
    #[arg(long, env = "VARTA_PHI_THRESHOLD", value_name = "N", hide_short_help = true)]
    pub phi_threshold: Option<f64>,

    /// For phi: pause that any agent may make, in addition to what its beats suggest [default: 3s]
    #[arg(long, env = "VARTA_PHI_ACCEPTABLE_PAUSE", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub phi_acceptable_pause: Option<Duration>,

    /// For phi: minimum standard deviation of the gaps between beats, whatever was observed [default: 100ms]
    #[arg(long, env = "VARTA_PHI_MIN_DEVIATION", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub phi_min_deviation: Option<Duration>,

    /// For chen: minimum average time between two mistakes about one agent
    #[arg(long, env = "VARTA_CHEN_MISTAKE_EVERY", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub chen_mistake_every: Option<Duration>,

    /// For chen: maximum time from an agent's last beat to the detection that it stopped
    #[arg(long, env = "VARTA_CHEN_DETECT_WITHIN", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub chen_detect_within: Option<Duration>,

    /// For chen: maximum average duration of a mistake
    #[arg(long, env = "VARTA_CHEN_CORRECTED_WITHIN", value_name = "DURATION", value_parser = parse_duration,
          hide_short_help = true)]
    pub chen_corrected_within: Option<Duration>,

    /// For phi and chen: minimum of the learned timeout [default: 100ms]
    #[arg(long, env = "VARTA_MIN_LEARNED_STALL_AFTER", value_name = "DURATION",
          value_parser = parse_duration, hide_short_help = true)]
    pub min_learned_stall_after: Option<Duration>,

    /// For phi and chen: maximum of the learned timeout [default: 1m]
    #[arg(long, env = "VARTA_MAX_LEARNED_STALL_AFTER", value_name = "DURATION",
          value_parser = parse_duration, hide_short_help = true)]
    pub max_learned_stall_after: Option<Duration>,
}

/// By which rule an agent is given its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Detector {
    /// The same timeout for all agents: --stall-after.
    #[default]
    Fixed,
    /// The phi accrual detector of Hayashibara et al.
    Phi,
    /// The detector of Chen, Toueg and Aguilera.
    Chen,
}

impl DetectorArgs {
    /// Converts the options to a policy.
    ///
    /// # Errors
    ///
    /// The first option that belongs to another detector, where it would have no effect. Ranges are checked
    /// by [`Config::check`](crate::config::Config::check).
    pub fn policy(&self) -> Result<ArrivalPolicy, Error> {
        let usual = ArrivalPolicy::default();
        let longest = self.max_learned_stall_after.unwrap_or(usual.longest);
        let (kind, theirs): (_, &[&str]) = match self.detector {
            Detector::Fixed => (Kind::Fixed, &[]),
            Detector::Phi => {
                // A default is no reason to refuse a shorter maximum.
                let usual = Phi::default();
                let settings = Phi {
                    threshold: self.phi_threshold.unwrap_or(usual.threshold),
                    acceptable_pause: self
                        .phi_acceptable_pause
                        .unwrap_or_else(|| usual.acceptable_pause.min(longest)),
                    min_deviation: self.phi_min_deviation.unwrap_or_else(|| usual.min_deviation.min(longest)),
                };
                (Kind::Phi(settings), &["--phi-", "--min-", "--max-"])
            }
            Detector::Chen => {
                let bounds = Bounds {
                    detect_within: self.chen_detect_within,
                    mistake_every: self.chen_mistake_every,
                    corrected_within: self.chen_corrected_within,
                };
                (Kind::Chen(bounds), &["--chen-", "--min-", "--max-"])
            }
        };
        let options = [
            ("--phi-threshold", self.phi_threshold.is_some(), "phi"),
            ("--phi-acceptable-pause", self.phi_acceptable_pause.is_some(), "phi"),
            ("--phi-min-deviation", self.phi_min_deviation.is_some(), "phi"),
            ("--chen-mistake-every", self.chen_mistake_every.is_some(), "chen"),
            ("--chen-detect-within", self.chen_detect_within.is_some(), "chen"),
            ("--chen-corrected-within", self.chen_corrected_within.is_some(), "chen"),
            ("--min-learned-stall-after", self.min_learned_stall_after.is_some(), "phi or chen"),
            ("--max-learned-stall-after", self.max_learned_stall_after.is_some(), "phi or chen"),
        ];
        let mut faults = OptionFaults::default();
        for (option, is_given, owner) in options {
            if is_given && !theirs.iter().any(|prefix| option.starts_with(prefix)) {
                faults.add(option, format!("does nothing without --detector {owner}"));
            }
        }
        faults.into_result()?;
        let shortest = self.min_learned_stall_after.unwrap_or(usual.shortest);
        Ok(ArrivalPolicy { kind, shortest, longest })
    }
}

/// The range of the phi threshold: below it any silence is suspicious, and above it nothing changes any more.
const PHI_THRESHOLDS: std::ops::RangeInclusive<f64> = 1.0..=100.0;

/// Checks ranges that the types leave open. A learned timeout must end before an agent is forgotten.
pub(crate) fn check_detector(policy: &ArrivalPolicy, forget_after: Duration) -> Result<(), Error> {
    let mut faults = OptionFaults::default();
    let ArrivalPolicy { kind, shortest, longest } = *policy;
    match kind {
        Kind::Fixed => return Ok(()),
        Kind::Phi(settings) => check_phi(&settings, longest, &mut faults),
        Kind::Chen(bounds) => check_bounds(&bounds, shortest, &mut faults),
    }
    if shortest < MIN_STALL_AFTER || shortest > MAX_DURATION {
        let fault = format!("{shortest:?} is not between 10ms and 366 days");
        faults.add("--min-learned-stall-after", fault);
    } else if longest < shortest || longest > forget_after {
        let fault = format!(
            "{longest:?} is not between the {shortest:?} of --min-learned-stall-after and the {forget_after:?} of \
             --forget-after"
        );
        faults.add("--max-learned-stall-after", fault);
    }
    faults.into_result()
}

fn check_phi(settings: &Phi, longest: Duration, faults: &mut OptionFaults) {
    let Phi { threshold, acceptable_pause, min_deviation } = *settings;
    if !PHI_THRESHOLDS.contains(&threshold) {
        let fault = format!("{threshold} is not between 1 and 100");
        faults.add("--phi-threshold", fault);
    }
    let durations = [("--phi-acceptable-pause", acceptable_pause), ("--phi-min-deviation", min_deviation)];
    for (option, duration) in durations {
        if duration > longest {
            let fault = format!("{duration:?} is more than the {longest:?} of --max-learned-stall-after");
            faults.add(option, fault);
        }
    }
}

fn check_bounds(bounds: &Bounds, shortest: Duration, faults: &mut OptionFaults) {
    let Bounds { detect_within, mistake_every, corrected_within } = *bounds;
    let all = [
        ("--chen-mistake-every", mistake_every),
        ("--chen-detect-within", detect_within),
        ("--chen-corrected-within", corrected_within),
    ];
    for (option, bound) in all {
        if let Some(bound) = bound
            && (bound < MIN_STALL_AFTER || bound > MAX_DURATION)
        {
            faults.add(option, format!("{bound:?} is not between 10ms and 366 days"));
        }
    }
    if all.iter().all(|(_, bound)| bound.is_none()) {
        let fault = "needs to be told what to achieve: --chen-mistake-every, --chen-detect-within or \
                     --chen-corrected-within, one or more of them";
        faults.add("--detector chen", fault);
    }
    let is_right = |within: &Duration| *within >= MIN_STALL_AFTER;
    if let Some(within) = detect_within.filter(is_right).filter(|within| *within < shortest) {
        let fault = format!("{within:?} is less than the {shortest:?} of --min-learned-stall-after");
        faults.add("--chen-detect-within", fault);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Another command that includes these options.
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        detector: DetectorArgs,
    }

    fn policy(words: &[&str]) -> Result<ArrivalPolicy, Error> {
        let arguments = ["command"].iter().chain(words);
        Command::try_parse_from(arguments).unwrap().detector.policy()
    }

    #[test]
    fn without_options_the_deadline_is_fixed() {
        assert_eq!(policy(&[]).unwrap(), ArrivalPolicy::default());
    }

    #[test]
    fn each_detector_has_its_own_options() {
        let phi = policy(&["--detector=phi", "--min-learned-stall-after=2s"]).unwrap();
        let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
        let usual = Phi { threshold: 8.0, acceptable_pause: 3 * second, min_deviation: tenth };
        assert_eq!(phi.kind, Kind::Phi(usual));
        assert_eq!((phi.shortest, phi.longest), (Duration::from_secs(2), Duration::from_secs(60)));
        assert_eq!(
            policy(&["--detector=phi", "--phi-threshold=9.5"]).unwrap().kind,
            Kind::Phi(Phi { threshold: 9.5, ..usual })
        );
        let shorter = policy(&["--detector=phi", "--max-learned-stall-after=2s"]).unwrap().kind;
        assert_eq!(shorter, Kind::Phi(Phi { acceptable_pause: 2 * second, ..usual }));
        let published = ["--detector=phi", "--phi-acceptable-pause=0s", "--phi-min-deviation=0s"];
        assert_eq!(policy(&published).unwrap().kind, Kind::Phi(Phi::PUBLISHED));
        let chen =
            policy(&["--detector=chen", "--chen-mistake-every=1h", "--max-learned-stall-after=9s"]).unwrap();
        let bounds = Bounds { mistake_every: Some(Duration::from_secs(3_600)), ..Bounds::default() };
        assert_eq!((chen.kind, chen.longest), (Kind::Chen(bounds), Duration::from_secs(9)));
    }

    #[test]
    fn an_option_of_another_detector_is_refused() {
        for (words, said) in [
            (&["--phi-threshold=8"][..], "--phi-threshold: does nothing without --detector phi"),
            (&["--detector=chen", "--phi-threshold=8"], "--phi-threshold: "),
            (&["--phi-acceptable-pause=1s"], "--phi-acceptable-pause: does nothing without --detector phi"),
            (&["--detector=chen", "--phi-min-deviation=1s"], "--phi-min-deviation: "),
            (&["--detector=phi", "--chen-detect-within=2s"], "--chen-detect-within: "),
            (&["--chen-mistake-every=1h"], "--chen-mistake-every: does nothing without --detector chen"),
            (
                &["--min-learned-stall-after=1s"],
                "--min-learned-stall-after: does nothing without --detector phi or chen",
            ),
            (&["--max-learned-stall-after=1s"], "--max-learned-stall-after: "),
        ] {
            let refused = policy(words).unwrap_err();
            assert_eq!(refused.exit_status(), 2);
            assert!(refused.to_string().starts_with(said), "{words:?}: {refused}");
        }
    }

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
        let phi = |threshold| Kind::Phi(Phi { threshold, ..Phi::PUBLISHED });
        let lenient = |pause, deviation| {
            Kind::Phi(Phi { acceptable_pause: pause, min_deviation: deviation, ..Phi::PUBLISHED })
        };
        for (kind, shortest, longest, said) in [
            (phi(0.0), second, minute, "--phi-threshold: 0 is not between 1 and 100"),
            (phi(f64::NAN), second, minute, "--phi-threshold: NaN is not"),
            (lenient(minute, second), second, second, "--phi-acceptable-pause: 60s is more than the 1s of"),
            (lenient(second, minute), second, second, "--phi-min-deviation: 60s is more than the 1s of"),
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
