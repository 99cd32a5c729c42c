//! The bounds of numbers and durations, which the checks of the options draw: found by asking them.

use std::cell::RefCell;
use std::ffi::OsString;
use std::time::Duration;

use clap::{Arg, Command, FromArgMatches};

use crate::base::options::{LookUps, Size, parse_duration, parse_size};
use crate::base::time::nanos;
use crate::config::args::{Args, without_variables};
use crate::config::option_kind::{OptionKind, defaults, is_a};

/// Options with which no other is without effect.
pub(crate) const EVERYTHING_ON: [&str; 12] = [
    "--detector=phi",
    "--alertmanager=http://a",
    "--webhook=http://a",
    "--webhook-key-file=key",
    "--mail-relay=smtp://localhost",
    "--mail-from=a@a.example",
    "--mail-to=a@a.example",
    "--events-file=e",
    "--audit-log=a",
    "--record=r",
    "--heartbeat-url=http://a",
    "--beat-to=unix:/a",
];

/// The longest duration that is tried.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The numbers or durations that a server takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds<N> {
    pub(crate) least: N,
    /// `None` if there is no bound that a file could go beyond.
    pub(crate) most: Option<N>,
}

/// What takes or refuses the values of options.
#[derive(Debug)]
pub(crate) struct Judge {
    /// Built once: that takes longer than to read a command line.
    definition: RefCell<Command>,
}

impl Judge {
    pub(crate) fn new(definition: &Command) -> Self {
        let mut definition = without_variables(definition.clone(), |_| true);
        definition.build();
        Judge { definition: RefCell::new(definition) }
    }

    /// The bounds of whole numbers, or of bytes.
    pub(crate) fn whole(&self, option: &Arg) -> Bounds<u64> {
        let default = defaults(option).into_iter().next().unwrap_or_default();
        let usual = match OptionKind::of(option) {
            OptionKind::Size => parse_size(&default).map(|Size(bytes)| bytes),
            _ => default.parse().map_err(|_| default),
        };
        // Without a default any number may be the first that is taken.
        let Ok(usual) = usual else { return Bounds { least: 0, most: None } };
        let last = if is_a::<u32>(option) { u64::from(u32::MAX) } else { u64::MAX };
        let takes = |number: u64| self.takes(option, &number.to_string());
        let most = furthest(usual, last, takes);
        Bounds { least: furthest(usual, 0, takes), most: (most < u64::MAX).then_some(most) }
    }

    /// The bounds of fractions that are not negative.
    pub(crate) fn fraction(&self, option: &Arg) -> Bounds<f64> {
        let usual = defaults(option).first().and_then(|default| default.parse::<f64>().ok());
        let Some(usual) = usual else { return Bounds { least: 0.0, most: None } };
        // These are in the order of the numbers.
        let takes = |bits: u64| self.takes(option, &f64::from_bits(bits).to_string());
        let furthest = |last: f64| f64::from_bits(furthest(usual.to_bits(), last.to_bits(), takes));
        let most = furthest(f64::MAX);
        Bounds { least: furthest(0.0), most: (most < f64::MAX).then_some(most) }
    }

    /// The bounds of durations; `None` without a default.
    pub(crate) fn duration(&self, option: &Arg) -> Option<Bounds<Duration>> {
        let usual = defaults(option).first().and_then(|default| parse_duration(default).ok())?;
        let takes = |nanos: u64| {
            let duration = humantime::format_duration(Duration::from_nanos(nanos));
            self.takes(option, &duration.to_string())
        };
        let furthest = |last: Duration| Duration::from_nanos(furthest(nanos(usual), nanos(last), takes));
        let most = furthest(LONGEST);
        Some(Bounds { least: furthest(Duration::ZERO), most: (most < LONGEST).then_some(most) })
    }

    fn takes(&self, option: &Arg, value: &str) -> bool {
        let argument = format!("--{}={value}", option.get_long().unwrap_or_default());
        let words = ["varta-server"].into_iter().chain(EVERYTHING_ON).map(OsString::from);
        let read = self.definition.borrow_mut().try_get_matches_from_mut(words.chain([argument.into()]));
        let args = read.and_then(|matches| Args::from_arg_matches(&matches));
        args.is_ok_and(|args| args.into_config_by(LookUps::LeftOut).is_ok())
    }
}

/// The number that is furthest from one that is taken, up to `last`, such that all between them are taken.
///
/// Bounds are mostly round, and each question takes a millisecond: round numbers are asked for first.
fn furthest(usual: u64, last: u64, takes: impl Fn(u64) -> bool) -> u64 {
    if takes(last) {
        return last;
    }
    let (mut taken, mut refused) = (usual, last);
    let halve = |taken: &mut u64, refused: &mut u64, at: u64| {
        *(if takes(at) { taken } else { refused }) = at;
    };
    let round = round_numbers();
    loop {
        let from = round.partition_point(|number| *number <= taken.min(refused));
        let to = round.partition_point(|number| *number < taken.max(refused));
        if from >= to {
            break;
        }
        halve(&mut taken, &mut refused, round[from.midpoint(to)]);
    }
    if taken.abs_diff(refused) > 1 {
        let next = if refused > taken { taken + 1 } else { taken - 1 };
        halve(&mut taken, &mut refused, next);
    }
    while taken.abs_diff(refused) > 1 {
        let between = taken.midpoint(refused);
        halve(&mut taken, &mut refused, between);
    }
    taken
}

/// Numbers that are likely to be bounds, in order: powers of ten and of two, and durations in nanoseconds.
fn round_numbers() -> Vec<u64> {
    const DAY: u64 = 86_400_000_000_000;
    let tens = (0..20).map(|power| 10_u64.saturating_pow(power));
    let twos = (0..64).map(|power| 1 << power);
    let times = [DAY / 1_440, DAY / 24, DAY, 30 * DAY, 366 * DAY];
    let mut all: Vec<_> = tens.chain(twos).chain(times).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::definition;
    use crate::services::audit::AuditOptions;
    use crate::services::recording::RecordOptions;

    #[test]
    fn the_last_number_that_is_taken_is_found_in_both_directions() {
        let takes = |number: u64| (3..=1_000).contains(&number);
        for usual in [3, 4, 500, 1_000] {
            assert_eq!(furthest(usual, 0, takes), 3);
            assert_eq!(furthest(usual, u64::MAX, takes), 1_000);
            assert_eq!(furthest(usual, 900, takes), 900);
        }
    }

    #[test]
    fn the_bounds_of_options_are_those_that_their_checks_draw() {
        let definition = definition();
        let judge = Judge::new(&definition);
        let option = |key: &str| definition.get_arguments().find(|option| option.get_long() == Some(key));
        for (key, least, most) in [
            ("max-agents", 1, None),
            ("max-agents-per-source", 0, None),
            ("max-beat-rate", 0, Some(u64::from(u32::MAX))),
            ("recovery-attempts", 1, Some(u64::from(u32::MAX))),
            ("audit-limit", AuditOptions::SMALLEST_LIMIT, Some(AuditOptions::MAX_FILE_LIMIT)),
            ("record-limit", RecordOptions::SMALLEST_LIMIT, None),
        ] {
            assert_eq!(judge.whole(option(key).unwrap()), Bounds { least, most }, "{key}");
        }
        let day = Duration::from_secs(86_400);
        for (key, least, most) in [
            ("stall-after", Duration::from_millis(10), Some(day)),
            ("longest-silence", Duration::ZERO, None),
            ("recovery-timeout", Duration::from_nanos(1), Some(day)),
            ("flap-window", Duration::from_secs(1), Some(366 * day)),
        ] {
            assert_eq!(judge.duration(option(key).unwrap()), Some(Bounds { least, most }), "{key}");
        }
        assert_eq!(judge.duration(option("hw-watchdog-timeout").unwrap()), None, "it has no default");
        assert_eq!(
            judge.fraction(option("phi-threshold").unwrap()),
            Bounds { least: 1.0, most: Some(100.0) }
        );
    }
}
