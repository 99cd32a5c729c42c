//! Verdicts: what the tracker concludes about an agent, and the one table of how that changes.

use std::fmt;

use serde::{Deserialize, Serialize};
use varta_proto::Status;

/// What the tracker concludes about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Verdict {
    /// A beat is awaited. An agent that the configuration names was not seen and its grace is over: before
    /// that it has no verdict. Or an agent that a previous server knew was not seen since, and its grace is
    /// not over: after that it is stalled.
    Expected,
    /// It beats, and this is the last status that it reported.
    Up(Status),
    /// Its deadline has passed and, as far as known, its process exists.
    Stalled,
    /// Its process is known to be gone, without a goodbye and not as it should.
    Down,
    /// It said goodbye, its process ended as it should, or another has taken its place.
    Gone,
    /// Its deadline passed while the server could not observe it, or while the queue of its socket was full;
    /// the verdict is decided again after a full grace.
    Unknown,
}

/// An event that can change a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::domain::tracker) enum Event {
    /// A beat with this status was accepted.
    Beat(Status),
    /// No beat was accepted until the deadline.
    DeadlinePassed,
    /// No beat was accepted until what would have been the deadline, had the server been able to observe the
    /// agent.
    DeadlinePassedUnseen,
    /// The agent said goodbye.
    SaidGoodbye,
    /// The process ended as it should, without a panic before, or another has taken its place.
    EndedWell,
    /// The process ended in any other way.
    Died,
}

/// As a number: 0 to 3 for `Up` with this status, then the others in order.
impl From<Verdict> for u8 {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Up(status) => status as u8,
            Verdict::Stalled => 4,
            Verdict::Down => 5,
            Verdict::Gone => 6,
            Verdict::Unknown => 7,
            Verdict::Expected => 8,
        }
    }
}

impl TryFrom<u8> for Verdict {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        let others = [Verdict::Stalled, Verdict::Down, Verdict::Gone, Verdict::Unknown, Verdict::Expected];
        let other = || others.get(usize::from(number.checked_sub(4)?)).copied();
        Status::from_u8(number)
            .map(Verdict::Up)
            .or_else(other)
            .ok_or_else(|| format!("{number} is no number of a verdict"))
    }
}

impl Verdict {
    /// Every verdict's name, in the order in which metrics list them.
    pub const NAMES: [&'static str; 6] = ["up", "stalled", "down", "gone", "unknown", "expected"];
    pub(crate) const UP: usize = 0;
    pub(crate) const STALLED: usize = 1;
    pub(crate) const DOWN: usize = 2;
    pub(crate) const GONE: usize = 3;
    pub(crate) const UNKNOWN: usize = 4;
    pub(crate) const EXPECTED: usize = 5;

    /// The verdict after `event`: the whole state machine.
    pub(in crate::domain::tracker) const fn next(self, event: Event) -> Verdict {
        match (self, event) {
            (
                Verdict::Up(_)
                | Verdict::Stalled
                | Verdict::Unknown
                | Verdict::Down
                | Verdict::Gone
                | Verdict::Expected,
                Event::Beat(status),
            ) => Verdict::Up(status),

            (
                Verdict::Up(_) | Verdict::Stalled | Verdict::Unknown | Verdict::Expected,
                Event::DeadlinePassed,
            ) => Verdict::Stalled,
            (Verdict::Up(_) | Verdict::Unknown, Event::DeadlinePassedUnseen) => Verdict::Unknown,
            (Verdict::Stalled, Event::DeadlinePassedUnseen) => Verdict::Stalled,
            (Verdict::Expected, Event::DeadlinePassedUnseen) => Verdict::Expected,

            (
                Verdict::Up(_) | Verdict::Stalled | Verdict::Unknown | Verdict::Expected,
                Event::SaidGoodbye | Event::EndedWell,
            ) => Verdict::Gone,
            (Verdict::Up(_) | Verdict::Stalled | Verdict::Unknown | Verdict::Expected, Event::Died) => {
                Verdict::Down
            }

            (
                Verdict::Down,
                Event::DeadlinePassed | Event::DeadlinePassedUnseen | Event::SaidGoodbye | Event::Died,
            ) => Verdict::Down,
            // Its parent has asked for its status late.
            (Verdict::Down, Event::EndedWell) => Verdict::Gone,
            (
                Verdict::Gone,
                Event::DeadlinePassed
                | Event::DeadlinePassedUnseen
                | Event::SaidGoodbye
                | Event::EndedWell
                | Event::Died,
            ) => Verdict::Gone,
        }
    }

    /// Its place in [`Verdict::NAMES`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Verdict::Up(_) => Self::UP,
            Verdict::Stalled => Self::STALLED,
            Verdict::Down => Self::DOWN,
            Verdict::Gone => Self::GONE,
            Verdict::Unknown => Self::UNKNOWN,
            Verdict::Expected => Self::EXPECTED,
        }
    }

    /// The value of the metric label `state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// The last reported status of an agent that is up.
    #[must_use]
    pub const fn status(self) -> Option<Status> {
        match self {
            Verdict::Up(status) => Some(status),
            Verdict::Stalled | Verdict::Down | Verdict::Gone | Verdict::Unknown | Verdict::Expected => None,
        }
    }

    /// Whether a deadline is pending: the agent may still become stalled.
    #[must_use]
    pub const fn is_awaited(self) -> bool {
        match self {
            Verdict::Up(_) | Verdict::Unknown | Verdict::Expected => true,
            Verdict::Stalled | Verdict::Down | Verdict::Gone => false,
        }
    }

    /// Whether the verdict calls for an alert.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        match self {
            Verdict::Up(Status::Ok | Status::Degraded) | Verdict::Gone | Verdict::Unknown => false,
            Verdict::Up(Status::Critical | Status::Stall)
            | Verdict::Stalled
            | Verdict::Down
            | Verdict::Expected => true,
        }
    }
}

/// `up`, `up (degraded)`, `up (critical)`, `stalled`, `down`, `gone`, `unknown`, `expected`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Up(status @ (Status::Degraded | Status::Critical | Status::Stall)) => {
                write!(f, "up ({status})")
            }
            Verdict::Up(Status::Ok)
            | Verdict::Stalled
            | Verdict::Down
            | Verdict::Gone
            | Verdict::Unknown
            | Verdict::Expected => f.write_str(self.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_this() {
        use Event::{Beat, DeadlinePassed, DeadlinePassedUnseen, Died, EndedWell, SaidGoodbye};
        use Verdict::{Down, Expected, Gone, Stalled, Unknown, Up};
        let events = [Beat(Status::Ok), DeadlinePassed, DeadlinePassedUnseen, SaidGoodbye, EndedWell, Died];
        let up = Up(Status::Ok);
        let table = [
            (Up(Status::Critical), [up, Stalled, Unknown, Gone, Gone, Down]),
            (Stalled, [up, Stalled, Stalled, Gone, Gone, Down]),
            (Unknown, [up, Stalled, Unknown, Gone, Gone, Down]),
            (Down, [up, Down, Down, Down, Gone, Down]),
            (Gone, [up, Gone, Gone, Gone, Gone, Gone]),
            (Expected, [up, Stalled, Expected, Gone, Gone, Down]),
        ];
        for (from, expected) in table {
            assert_eq!(events.map(|event| from.next(event)), expected, "{from}");
        }
    }

    #[test]
    fn silence_death_and_critical_are_alarms_and_a_farewell_is_none() {
        use Verdict::{Down, Expected, Gone, Stalled, Unknown, Up};
        let alarms = [Up(Status::Critical), Stalled, Down, Expected];
        let calm = [Up(Status::Ok), Up(Status::Degraded), Gone, Unknown];
        assert!(alarms.iter().all(|verdict| verdict.is_alarm()));
        assert!(!calm.iter().any(|verdict| verdict.is_alarm()));
    }
}
