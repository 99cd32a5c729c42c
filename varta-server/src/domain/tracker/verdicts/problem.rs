//! What is wrong with an agent in alarm, and which of two problems is worse.

use serde::{Deserialize, Serialize};

use crate::domain::tracker::verdicts::verdict::Verdict;

/// What is wrong with an agent, from the least to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Problem {
    /// It is expected and has never come.
    Missing,
    /// It is silent.
    Stalled,
    /// It reports that it is critical.
    Critical,
    /// Its process has ended without a goodbye.
    Down,
}

impl Problem {
    pub(crate) const ALL: [Problem; 4] =
        [Problem::Missing, Problem::Stalled, Problem::Critical, Problem::Down];

    /// What a verdict means; `None` for one that is no alarm.
    pub(crate) fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            _ if !verdict.is_alarm() => None,
            Verdict::Expected => Some(Problem::Missing),
            Verdict::Stalled => Some(Problem::Stalled),
            Verdict::Up(_) => Some(Problem::Critical),
            Verdict::Down => Some(Problem::Down),
            Verdict::Gone | Verdict::Unknown => None,
        }
    }

    /// `missing`, `stalled`, `critical`, `down`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Problem::Missing => "missing",
            Problem::Stalled => "stalled",
            Problem::Critical => "critical",
            Problem::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;

    #[test]
    fn each_alarm_is_a_problem_of_its_own_and_what_is_no_alarm_is_none() {
        let alarms = [Verdict::Expected, Verdict::Stalled, Verdict::Up(Status::Critical), Verdict::Down]
            .map(Problem::of);
        assert_eq!(alarms, Problem::ALL.map(Some));
        let others =
            [Verdict::Up(Status::Ok), Verdict::Up(Status::Degraded), Verdict::Gone, Verdict::Unknown];
        assert_eq!(others.map(Problem::of), [None; 4]);
        assert!(Problem::ALL.is_sorted());
    }
}
