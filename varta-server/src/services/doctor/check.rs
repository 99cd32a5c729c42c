//! One check and its result.

use std::fmt;

use serde_json::{Value, json};

use crate::base::visible::visible_text;

/// How a check has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Nothing to do.
    Ok,
    /// It cannot be told, or does not apply.
    Skipped,
    /// Something may become trouble, or was.
    Warning,
    /// Something does not work.
    Failed,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Skipped => "skipped",
            Outcome::Warning => "warning",
            Outcome::Failed => "failed",
        }
    }
}

/// A check with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    /// What was seen.
    pub(super) seen: String,
    /// What to do; empty where there is nothing to do.
    pub(super) advice: String,
}

impl Check {
    pub(super) fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Check { name, outcome: Outcome::Ok, seen: seen.into(), advice: String::new() }
    }

    pub(super) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Check { name, outcome: Outcome::Skipped, seen: why.into(), advice: String::new() }
    }

    pub(super) fn warning(name: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name, outcome: Outcome::Warning, seen: seen.into(), advice: advice.into() }
    }

    pub(super) fn failed(name: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name, outcome: Outcome::Failed, seen: seen.into(), advice: advice.into() }
    }

    /// A warning where `is_wrong`, else all is well.
    pub(super) fn warning_if(
        is_wrong: bool,
        name: &'static str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        if is_wrong { Check::warning(name, seen, advice) } else { Check::ok(name, seen) }
    }

    /// Whether somebody should look.
    pub(super) fn is_wrong(&self) -> bool {
        self.outcome >= Outcome::Warning
    }

    pub(super) fn to_json(&self) -> Value {
        let Check { name, outcome, seen, advice } = self;
        let advice = (!advice.is_empty()).then_some(advice);
        json!({ "name": name, "outcome": outcome.as_str(), "seen": seen, "advice": advice })
    }
}

/// A line, and one more with what to do.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { name, outcome, seen, advice } = self;
        writeln!(f, "{:<8} {name:<16} {}", outcome.as_str(), visible_text(seen))?;
        if !advice.is_empty() {
            writeln!(f, "{:<25} -> {}", "", visible_text(advice))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_line_and_advice_another() {
        let check = Check::warning("clock", "it is\u{7} wrong", "set it");
        assert_eq!(
            check.to_string(),
            "warning  clock            it is? wrong\n                          -> set it\n"
        );
        assert_eq!(Check::ok("clock", "right").to_string(), "ok       clock            right\n");
        assert!(check.is_wrong() && !Check::skipped("clock", "").is_wrong());
        assert_eq!(Check::ok("a", "b").to_json()["advice"], Value::Null);
    }
}
