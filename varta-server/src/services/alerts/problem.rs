//! What is wrong with the subject of an alert: its name, its severity, and which of two is worse.

use serde::{Deserialize, Serialize};

use crate::domain::tracker::Verdict;
use crate::services::alerts::alert::Texts;

/// What is wrong with an agent, from the least to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Problem {
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
    const ALL: [Problem; 4] = [Problem::Missing, Problem::Stalled, Problem::Critical, Problem::Down];

    /// What a verdict means; `None` for one that is no alarm.
    pub(super) fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            _ if !verdict.is_alarm() => None,
            Verdict::Expected => Some(Problem::Missing),
            Verdict::Stalled => Some(Problem::Stalled),
            Verdict::Up(_) => Some(Problem::Critical),
            Verdict::Down => Some(Problem::Down),
            Verdict::Gone | Verdict::Unknown => None,
        }
    }

    /// What an alert says, by its labels. One that a release without these names wrote is judged by its
    /// newest `state`. `None` for the alert of all agents without one of their own.
    pub(super) fn of_alert(labels: &Texts, state: &str) -> Option<Self> {
        let name = labels.get("alertname").map_or("", String::as_str);
        let named =
            Self::ALL.into_iter().find(|known| [known.alert_name(), known.group_name()].contains(&name));
        named.or(match state {
            "expected" => Some(Problem::Missing),
            "stalled" => Some(Problem::Stalled),
            "up" => Some(Problem::Critical),
            "down" => Some(Problem::Down),
            _ => None,
        })
    }

    /// The `alertname` of the alert of one agent.
    pub(super) const fn alert_name(self) -> &'static str {
        match self {
            Problem::Missing => "VartaAgentMissing",
            Problem::Stalled => "VartaAgentStalled",
            Problem::Critical => "VartaAgentCritical",
            Problem::Down => "VartaAgentDown",
        }
    }

    /// The `alertname` of the alert of agents that failed together.
    pub(super) const fn group_name(self) -> &'static str {
        match self {
            Problem::Missing => "VartaAgentsMissing",
            Problem::Stalled => "VartaAgentsStalled",
            Problem::Critical => "VartaAgentsCritical",
            Problem::Down => "VartaAgentsDown",
        }
    }

    /// The label `severity`.
    pub(super) const fn severity(self) -> &'static str {
        match self {
            Problem::Missing | Problem::Stalled => "warning",
            Problem::Critical | Problem::Down => "critical",
        }
    }
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;

    fn labels(name: &str) -> Texts {
        Texts::from([("alertname".to_owned(), name.to_owned())])
    }

    #[test]
    fn each_alarm_has_a_name_of_its_own_and_what_is_no_alarm_has_none() {
        let alarms = [Verdict::Expected, Verdict::Stalled, Verdict::Up(Status::Critical), Verdict::Down]
            .map(Problem::of);
        assert_eq!(alarms, Problem::ALL.map(Some));
        let others =
            [Verdict::Up(Status::Ok), Verdict::Up(Status::Degraded), Verdict::Gone, Verdict::Unknown];
        assert_eq!(others.map(Problem::of), [None; 4]);
        for problem in Problem::ALL {
            assert_eq!(Problem::of_alert(&labels(problem.alert_name()), "up"), Some(problem));
            assert_eq!(Problem::of_alert(&labels(problem.group_name()), "up"), Some(problem));
        }
        assert!(Problem::ALL.is_sorted());
    }

    #[test]
    fn an_alert_under_another_name_is_judged_by_its_state() {
        let of = |state| Problem::of_alert(&labels("VartaAgentUnhealthy"), state);
        assert_eq!(["expected", "stalled", "up", "down"].map(of), Problem::ALL.map(Some));
        assert_eq!(of(""), None);
    }
}
