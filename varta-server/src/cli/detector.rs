//! The options by which agents that promise nothing are given their time.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::Error;
use crate::tracker::arrival::{ArrivalPolicy, Bounds, Kind};

/// By which rule an agent that asks for nothing is called silent. A group of options, for each command that tracks
/// agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Args)]
pub struct DetectorArgs {
    /// How long an agent may be silent that asks for nothing: --stall-after for all, or learned from its own beats
    ///
    /// `phi` goes by the gaps between beats; `chen` finds the shortest time that keeps to the bounds of --chen-*. Until
    /// enough was learned of an agent, and where the bounds cannot be met, it is --stall-after.
    #[arg(long, env = "VARTA_DETECTOR", value_name = "RULE", value_enum, default_value_t)]
    pub detector: Detector,

    /// For phi: by how many powers of ten a silence that is too long is unlikely, 1 to 100 [default: 8]
    #[arg(long, env = "VARTA_PHI_THRESHOLD", value_name = "N")]
    pub phi_threshold: Option<f64>,

    /// For chen: the time between two mistakes about one agent, at the least and on average
    #[arg(long, env = "VARTA_CHEN_MISTAKE_EVERY", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub chen_mistake_every: Option<Duration>,

    /// For chen: how long after its last beat it may take to find out that an agent stopped
    #[arg(long, env = "VARTA_CHEN_DETECT_WITHIN", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub chen_detect_within: Option<Duration>,

    /// For chen: how long a mistake may last, on average
    #[arg(long, env = "VARTA_CHEN_CORRECTED_WITHIN", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub chen_corrected_within: Option<Duration>,

    /// For phi and chen: the least that an agent is given by what was learned [default: 100ms]
    #[arg(long, env = "VARTA_MIN_LEARNED_STALL_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub min_learned_stall_after: Option<Duration>,

    /// For phi and chen: the most that an agent is given by what was learned [default: 1m]
    #[arg(long, env = "VARTA_MAX_LEARNED_STALL_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_learned_stall_after: Option<Duration>,
}

/// By which rule an agent is given its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Detector {
    /// The same for all: --stall-after.
    #[default]
    Fixed,
    /// The phi accrual detector of Hayashibara et al.
    Phi,
    /// The detector of Chen, Toueg and Aguilera.
    Chen,
}

impl DetectorArgs {
    /// The threshold of phi that nobody has to give: the one of its authors.
    const PHI_THRESHOLD: f64 = 8.0;

    /// What these options say.
    ///
    /// # Errors
    ///
    /// The first option that belongs to another detector, and would do nothing. Whether values make sense is for
    /// [`Config::check`](crate::config::Config::check).
    pub fn policy(&self) -> Result<ArrivalPolicy, Error> {
        let (kind, theirs): (_, &[&str]) = match self.detector {
            Detector::Fixed => (Kind::Fixed, &[]),
            Detector::Phi => {
                let threshold = self.phi_threshold.unwrap_or(Self::PHI_THRESHOLD);
                (Kind::Phi { threshold }, &["--phi-", "--min-", "--max-"])
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
            ("--chen-mistake-every", self.chen_mistake_every.is_some(), "chen"),
            ("--chen-detect-within", self.chen_detect_within.is_some(), "chen"),
            ("--chen-corrected-within", self.chen_corrected_within.is_some(), "chen"),
            ("--min-learned-stall-after", self.min_learned_stall_after.is_some(), "phi or chen"),
            ("--max-learned-stall-after", self.max_learned_stall_after.is_some(), "phi or chen"),
        ];
        for (option, is_given, owner) in options {
            if is_given && !theirs.iter().any(|prefix| option.starts_with(prefix)) {
                let fault = format!("does nothing without --detector {owner}");
                return Err(Error::Option { option, fault });
            }
        }
        let usual = ArrivalPolicy::default();
        Ok(ArrivalPolicy {
            kind,
            shortest: self.min_learned_stall_after.unwrap_or(usual.shortest),
            longest: self.max_learned_stall_after.unwrap_or(usual.longest),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Another command that has these options too.
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
    fn a_command_that_has_these_options_keeps_its_own_description() {
        let about = super::super::definition().get_about().map(ToString::to_string);
        assert!(about.is_some_and(|about| about.starts_with("Takes heartbeats")));
    }

    #[test]
    fn each_detector_has_its_own_options() {
        let phi = policy(&["--detector=phi", "--min-learned-stall-after=2s"]).unwrap();
        assert_eq!(phi.kind, Kind::Phi { threshold: 8.0 });
        assert_eq!((phi.shortest, phi.longest), (Duration::from_secs(2), Duration::from_secs(60)));
        assert_eq!(
            policy(&["--detector=phi", "--phi-threshold=9.5"]).unwrap().kind,
            Kind::Phi { threshold: 9.5 }
        );
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
}
