//! Rules: settings that an operator gives to agents by their names.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::limits::{check_duration, check_grace};
use crate::base::{EntryError, Glob};
use crate::domain::forget_after::ForgetAfter;
use crate::domain::process::SuccessExit;

/// What a rule says of the progress of agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRule {
    /// Whether the payload of their beats is a counter that must move; `None` leaves that to the agents.
    pub is_payload: Option<bool>,
    /// How long the counter may stand; `None` leaves that to the agents and to the default.
    pub after: Option<Duration>,
}

/// Settings for the agents whose names match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The pattern that the names match.
    pub name: Glob,
    /// The stall timeout of these agents; `None` leaves it to the agents and to the default.
    pub stall_after: Option<Duration>,
    /// The ends of their processes that are ordinary; `None` for the default.
    pub success_exit: Option<SuccessExit>,
    /// How long after the end of such a process another may take its place without an alarm; `None` for the
    /// default.
    pub replaced_within: Option<Duration>,
    /// How long these agents are kept after their last beats, by their states.
    pub forget_after: ForgetAfter,
    /// How the progress of these agents is watched.
    pub progress: ProgressRule,
}

impl Rule {
    /// A rule for the agents whose names match, without any setting.
    #[must_use]
    pub const fn of(name: Glob) -> Self {
        let forget_after = ForgetAfter { stalled: None, down: None, gone: None };
        let progress = ProgressRule { is_payload: None, after: None };
        Rule { name, stall_after: None, success_exit: None, replaced_within: None, forget_after, progress }
    }
}

/// Rules in order. Only the first rule that matches a name applies to it.
///
/// ```
/// use std::time::Duration;
/// use varta_server::config::{Glob, Rule, Rules};
///
/// let mut rules = Rules::default();
/// let billing = Glob::parse("billing-*")?;
/// rules.add(Rule { stall_after: Some(Duration::from_secs(30)), ..Rule::of(billing) })?;
/// assert_eq!(rules.stall_after_for("billing-7"), Some(Duration::from_secs(30)));
/// assert_eq!(rules.stall_after_for("mail"), None);
/// # Ok::<(), varta_server::config::EntryError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// The maximum number of rules. Each may be tried when an agent gets a name.
    pub const MAX_RULES: usize = 1_024;

    /// Appends a rule.
    ///
    /// # Errors
    ///
    /// When there are too many rules, when an earlier rule has the same pattern, when `stall_after` is out of
    /// the range of [10 ms](crate::base::limits::MIN_STALL_AFTER) to
    /// [366 days](crate::base::limits::MAX_DURATION), when a duration of `forget_after` or `progress` is, or when
    /// `replaced_within` is longer than [10 minutes](crate::base::limits::MAX_REPLACED_WITHIN). The rules are unchanged
    /// then.
    pub fn add(&mut self, rule: Rule) -> Result<(), EntryError> {
        if let Some(stall_after) = rule.stall_after {
            check_duration("stall-after", stall_after)?;
        }
        if let Some(within) = rule.replaced_within {
            check_grace("replaced-within", within)?;
        }
        rule.forget_after.check()?;
        if let Some(after) = rule.progress.after {
            check_duration("no-progress-after", after)?;
        }
        if self.0.iter().any(|earlier| earlier.name == rule.name) {
            return Err(EntryError::NameTwice { name: rule.name.as_str().to_owned() });
        }
        if self.0.len() >= Self::MAX_RULES {
            return Err(EntryError::TooMany { most: Self::MAX_RULES });
        }
        self.0.push(rule);
        Ok(())
    }

    /// The rule that applies to agents of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.name.matches(name))
    }

    /// The stall timeout that a rule sets for agents of this name; `None` if no rule does.
    #[must_use]
    pub fn stall_after_for(&self, name: &str) -> Option<Duration> {
        self.find(name)?.stall_after
    }

    /// The ends that are ordinary for agents of this name.
    #[must_use]
    pub fn success_exit_for(&self, name: &str) -> SuccessExit {
        self.find(name).and_then(|rule| rule.success_exit).unwrap_or_default()
    }

    /// How long another may take the place of an agent of this name without an alarm; `None` if no rule says
    /// it.
    #[must_use]
    pub fn replaced_within_for(&self, name: &str) -> Option<Duration> {
        self.find(name)?.replaced_within
    }

    /// How the progress of agents of this name is watched.
    #[must_use]
    pub fn progress_for(&self, name: &str) -> ProgressRule {
        self.find(name).map(|rule| rule.progress).unwrap_or_default()
    }

    /// How long agents of this name are kept, by their states.
    #[must_use]
    pub fn forget_after_for(&self, name: &str) -> ForgetAfter {
        self.find(name).map(|rule| rule.forget_after).unwrap_or_default()
    }

    /// The rule with the longest stall timeout.
    #[must_use]
    pub fn longest(&self) -> Option<&Rule> {
        self.iter().filter(|rule| rule.stall_after.is_some()).max_by_key(|rule| rule.stall_after)
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every rule, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, stall_after: Option<u64>) -> Rule {
        let name = Glob::parse(name).unwrap();
        Rule { stall_after: stall_after.map(Duration::from_secs), ..Rule::of(name) }
    }

    #[test]
    fn a_star_stands_for_any_characters_and_a_question_mark_for_one() {
        for (glob, fits, does_not) in [
            ("billing", "billing", "billing-1"),
            ("billing-*", "billing-", "billing"),
            ("*-worker", "a-worker-worker", "a-worker-"),
            ("w?", "wé", "w"),
            ("?*", "x", ""),
            ("a*b*c", "aXbXbXc", "aXcXb"),
            ("*ab*ab*", "xabyab", "xaby"),
            ("**?**", "x", ""),
            ("10.0.*:3", "10.0.0.1:3", "10.0.0.1:33"),
            ("[ab]\\", "[ab]\\", "a"),
        ] {
            let glob = Glob::parse(glob).unwrap();
            assert!(glob.matches(fits), "{glob:?} {fits}");
            assert!(!glob.matches(does_not), "{glob:?} {does_not}");
        }
        let all = Glob::parse("*").unwrap();
        assert!(all.matches("") && all.matches("anything at all"));
    }

    #[test]
    fn a_hostile_pattern_and_name_take_no_more_steps_than_the_product_of_their_lengths() {
        // A matcher that retries every star would not return.
        let glob = Glob::parse(&format!("{}b", "a*".repeat(63))).unwrap();
        assert!(!glob.matches(&"a".repeat(10_000)));
    }

    #[test]
    fn a_pattern_is_bounded_and_can_be_seen() {
        for wrong in ["", "a\nb", "\u{7f}", &"x".repeat(Glob::MAX_LEN + 1)] {
            assert_eq!(Glob::parse(wrong), Err(EntryError::NotAPattern { most: Glob::MAX_LEN }));
        }
        assert!(Glob::parse(&"é".repeat(Glob::MAX_LEN)).is_ok());
    }

    #[test]
    fn the_first_rule_that_fits_is_the_only_one_that_counts() {
        let mut rules = Rules::default();
        assert!(rules.is_empty() && rules.longest().is_none());
        for rule in [
            rule("billing-slow", Some(60)),
            rule("billing-own", None),
            rule("billing-*", Some(2)),
            rule("*", Some(9)),
        ] {
            rules.add(rule).unwrap();
        }
        let seconds = |name| rules.stall_after_for(name).map(|time| time.as_secs());
        assert_eq!(seconds("billing-slow"), Some(60));
        assert_eq!(seconds("billing-own"), None, "a rule that says nothing keeps later ones away");
        assert_eq!(seconds("billing-7"), Some(2));
        assert_eq!(seconds("mail"), Some(9));
        assert_eq!(rules.longest().unwrap().name.as_str(), "billing-slow");
    }

    #[test]
    fn a_rule_that_could_never_count_or_makes_no_sense_is_refused() {
        let mut rules = Rules::default();
        rules.add(rule("a*", Some(1))).unwrap();
        assert!(matches!(rules.add(rule("a*", Some(2))), Err(EntryError::NameTwice { .. })));
        let too_long = rules.add(rule("b*", Some(367 * 86_400))).unwrap_err();
        assert_eq!(too_long.to_string(), "stall-after: 31708800s is not between 10ms and 366 days");
        let too_short = Rule { stall_after: Some(Duration::from_millis(9)), ..rule("b*", None) };
        assert!(rules.add(too_short).is_err());
        assert_eq!(rules.iter().len(), 1);
        for number in 1..Rules::MAX_RULES {
            rules.add(rule(&format!("r{number}"), None)).unwrap();
        }
        assert_eq!(rules.add(rule("one-more", None)), Err(EntryError::TooMany { most: Rules::MAX_RULES }));
    }
}
