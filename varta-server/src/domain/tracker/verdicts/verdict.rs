//! What the server concludes about an agent, and the one table by which conclusions change.

use std::fmt;

use varta_proto::Status;

/// What the server concludes about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is to come. One that is named in the configuration was not heard, and its grace is over: before that it has no
    /// verdict. One that a server before this one knew was not heard since, and its grace is not over: then it is stalled.
    Expected,
    /// It beats, and this is the status that it reported last.
    Up(Status),
    /// Its deadline passed and, as far as known, the process exists.
    Stalled,
    /// The process is known to be gone, and did not say goodbye.
    Down,
    /// It said goodbye, or its process exited with status 0.
    Gone,
    /// Its deadline passed while the server could not see; it is judged anew when it has had a full chance.
    Unknown,
}

/// What can change a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A beat was accepted, with this status.
    Beat(Status),
    /// Nothing was accepted until the deadline.
    DeadlinePassed,
    /// Nothing was accepted until what would have been the deadline, had the server been able to see.
    DeadlinePassedUnseen,
    /// It said goodbye.
    SaidGoodbye,
    /// The process exited with status 0, and had not panicked.
    ExitedWell,
    /// The process ended in any other way.
    Died,
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
    pub(crate) const fn next(self, event: Event) -> Verdict {
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
                Event::SaidGoodbye | Event::ExitedWell,
            ) => Verdict::Gone,
            (Verdict::Up(_) | Verdict::Stalled | Verdict::Unknown | Verdict::Expected, Event::Died) => {
                Verdict::Down
            }

            (
                Verdict::Down,
                Event::DeadlinePassed
                | Event::DeadlinePassedUnseen
                | Event::SaidGoodbye
                | Event::ExitedWell
                | Event::Died,
            ) => Verdict::Down,
            (
                Verdict::Gone,
                Event::DeadlinePassed
                | Event::DeadlinePassedUnseen
                | Event::SaidGoodbye
                | Event::ExitedWell
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

    /// The status that an agent that is up reported last.
    #[must_use]
    pub const fn status(self) -> Option<Status> {
        match self {
            Verdict::Up(status) => Some(status),
            Verdict::Stalled | Verdict::Down | Verdict::Gone | Verdict::Unknown | Verdict::Expected => None,
        }
    }

    /// Whether its silence is watched: it may still be called stalled.
    #[must_use]
    pub const fn is_awaited(self) -> bool {
        match self {
            Verdict::Up(_) | Verdict::Unknown | Verdict::Expected => true,
            Verdict::Stalled | Verdict::Down | Verdict::Gone => false,
        }
    }

    /// Whether somebody ought to be told.
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
        use Event::{Beat, DeadlinePassed, DeadlinePassedUnseen, Died, ExitedWell, SaidGoodbye};
        use Verdict::{Down, Expected, Gone, Stalled, Unknown, Up};
        let events = [Beat(Status::Ok), DeadlinePassed, DeadlinePassedUnseen, SaidGoodbye, ExitedWell, Died];
        let up = Up(Status::Ok);
        let table = [
            (Up(Status::Critical), [up, Stalled, Unknown, Gone, Gone, Down]),
            (Stalled, [up, Stalled, Stalled, Gone, Gone, Down]),
            (Unknown, [up, Stalled, Unknown, Gone, Gone, Down]),
            (Down, [up, Down, Down, Down, Down, Down]),
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
