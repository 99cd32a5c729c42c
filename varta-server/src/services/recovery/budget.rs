//! Budgets: a limit on the number of actions within a time.
//!
//! A budget is a token bucket (Turner, "New directions in communications", 1986): it holds as many tokens
//! as the budget allows actions, an action takes one, and they come back evenly over the budget's time.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::base::limits::MAX_DURATION;
use crate::base::options::parse_duration;
use crate::base::rate_limit::RateLimit;

/// A limit of actions within a time; written as `5/10m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The number of actions.
    pub actions: NonZeroU32,
    /// The time.
    pub within: Duration,
}

impl Budget {
    /// The shortest time.
    const MIN_WINDOW: Duration = Duration::from_secs(1);

    /// `actions` actions within `seconds` seconds.
    #[must_use]
    pub const fn new(actions: NonZeroU32, seconds: u64) -> Self {
        Budget { actions, within: Duration::from_secs(seconds) }
    }

    /// The rate at which actions are allowed.
    pub(super) fn limit(self) -> RateLimit {
        RateLimit::within(self.actions, self.within)
    }
}

/// Parses `5/10m`.
impl FromStr for Budget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FAULT: &str = "is not ACTIONS/DURATION, as in 5/10m; at least 1 action, and 1s to 366 days";
        let (actions, within) = text.split_once('/').ok_or(FAULT)?;
        let actions = actions.trim().parse().map_err(|_| FAULT)?;
        let within = parse_duration(within.trim()).map_err(|_| FAULT)?;
        if within < Self::MIN_WINDOW || within > MAX_DURATION {
            return Err(FAULT);
        }
        Ok(Budget { actions, within })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.actions, humantime::format_duration(self.within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_reads_as_it_is_written() {
        let budget: Budget = "5/10m".parse().unwrap();
        assert_eq!((budget.actions.get(), budget.within), (5, Duration::from_secs(600)));
        assert_eq!(budget.to_string(), "5/10m");
        for wrong in ["", "5", "0/1m", "5/", "/1m", "-1/1m", "5/0s", "5/500ms", "5/10y", "5/10m/2"] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
    }
}
