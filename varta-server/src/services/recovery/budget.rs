//! Budgets: so many actions within a time, and no more.
//!
//! A token bucket (Turner, "New directions in communications", 1986): it holds as many tokens as the budget allows actions,
//! an action takes one, and they come back evenly over the budget's time.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::base::time::MonoTime;

/// So many actions within a time; written as `5/10m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many.
    pub actions: NonZeroU32,
    /// Within how long.
    pub within: Duration,
}

impl Budget {
    /// The shortest time for which one can be given.
    const SHORTEST: Duration = Duration::from_secs(1);
    /// The longest.
    const LONGEST: Duration = Duration::from_secs(366 * 86_400);

    /// `actions` actions within `seconds` seconds.
    #[must_use]
    pub const fn new(actions: NonZeroU32, seconds: u64) -> Self {
        Budget { actions, within: Duration::from_secs(seconds) }
    }

    /// How long it takes until one more is allowed.
    fn per_action(self) -> Duration {
        self.within / self.actions.get()
    }
}

/// Reads `5/10m`.
impl FromStr for Budget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FAULT: &str = "is not ACTIONS/DURATION, as in 5/10m; at least 1 action, and 1s to 366 days";
        let (actions, within) = text.split_once('/').ok_or(FAULT)?;
        let actions = actions.trim().parse().map_err(|_| FAULT)?;
        let within = humantime::parse_duration(within.trim()).map_err(|_| FAULT)?;
        if within < Self::SHORTEST || within > Self::LONGEST {
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

/// How much of a budget is left.
///
/// It is kept as the time at which it was, or will be, full: each token that is taken puts that off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at: MonoTime,
}

impl Bucket {
    /// When one may be taken, which may have been before.
    pub(super) fn next_at(self, budget: Budget) -> MonoTime {
        (self.full_at + budget.per_action()).before(budget.within)
    }

    /// Takes one. To be called when there is one.
    pub(super) fn take(&mut self, budget: Budget, now: MonoTime) {
        self.full_at = self.full_at.max(now) + budget.per_action();
    }

    /// Gives one back that was taken for what did not come about.
    pub(super) fn give_back(&mut self, budget: Budget) {
        self.full_at = self.full_at.before(budget.per_action());
    }

    /// Whether nothing has been taken that has not come back.
    pub(super) fn is_full(self, now: MonoTime) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> MonoTime {
        MonoTime::from_secs(secs)
    }

    #[test]
    fn a_budget_reads_as_it_is_written() {
        let budget: Budget = "5/10m".parse().unwrap();
        assert_eq!((budget.actions.get(), budget.within), (5, Duration::from_secs(600)));
        assert_eq!(budget.to_string(), "5/10m");
        for wrong in ["", "5", "0/1m", "5/", "/1m", "-1/1m", "5/0s", "5/500ms", "5/10y", "5/10m/2"] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_of_it_may_be_taken_at_once_and_comes_back_evenly() {
        let budget: Budget = "3/30s".parse().unwrap();
        let mut bucket = Bucket::default();
        let mut taken = 0;
        while bucket.next_at(budget) <= at(100) {
            bucket.take(budget, at(100));
            taken += 1;
        }
        assert_eq!(taken, 3);
        assert_eq!(bucket.next_at(budget), at(110));
        bucket.take(budget, at(110));
        assert_eq!(bucket.next_at(budget), at(120));
        assert!(!bucket.is_full(at(139)) && bucket.is_full(at(140)));
    }

    #[test]
    fn no_time_of_a_budgets_length_sees_more_than_twice_of_it() {
        let budget: Budget = "4/20s".parse().unwrap();
        let mut bucket = Bucket::default();
        let mut taken = Vec::new();
        for second in 0..200 {
            while bucket.next_at(budget) <= at(second) {
                bucket.take(budget, at(second));
                taken.push(second);
            }
        }
        for start in 0..180 {
            let within = taken.iter().filter(|taken| (start..start + 20).contains(*taken)).count();
            assert!(within <= 8, "{within} from {start} on");
        }
        assert_eq!(taken.len(), 4 + 199 / 5);
    }
}
