//! The alert of each problem: its name, its severity, and which problem an alert was for.

use crate::domain::tracker::Problem;
use crate::services::alerts::alert::Texts;

impl Problem {
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
    use super::*;

    fn labels(name: &str) -> Texts {
        Texts::from([("alertname".to_owned(), name.to_owned())])
    }

    #[test]
    fn an_alert_is_known_by_its_name_whatever_its_state() {
        for problem in Problem::ALL {
            assert_eq!(Problem::of_alert(&labels(problem.alert_name()), "up"), Some(problem));
            assert_eq!(Problem::of_alert(&labels(problem.group_name()), "up"), Some(problem));
        }
    }

    #[test]
    fn an_alert_under_another_name_is_judged_by_its_state() {
        let of = |state| Problem::of_alert(&labels("VartaAgentUnhealthy"), state);
        assert_eq!(["expected", "stalled", "up", "down"].map(of), Problem::ALL.map(Some));
        assert_eq!(of(""), None);
    }
}
