//! What the server concludes about an agent, and the one table by which conclusions change.

use std::fmt;

use varta_proto::Status;

/// What the server concludes about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It beats, and this is the status that it reported last.
    Up(Status),
    /// Its deadline passed and, as far as known, the process exists.
    Stalled,
}

/// What can change a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A beat was accepted, with this status.
    Beat(Status),
    /// Nothing was accepted until the deadline.
    DeadlinePassed,
}

impl Verdict {
    /// Every verdict's name, in the order in which metrics list them.
    pub const NAMES: [&'static str; 2] = ["up", "stalled"];
    pub(crate) const UP: usize = 0;
    pub(crate) const STALLED: usize = 1;

    /// The verdict after `event`: the whole state machine.
    pub(crate) const fn next(self, event: Event) -> Verdict {
        match (self, event) {
            (Verdict::Up(_), Event::Beat(status)) => Verdict::Up(status),
            (Verdict::Up(_), Event::DeadlinePassed) => Verdict::Stalled,
            (Verdict::Stalled, Event::Beat(status)) => Verdict::Up(status),
            (Verdict::Stalled, Event::DeadlinePassed) => Verdict::Stalled,
        }
    }

    /// Its place in [`Verdict::NAMES`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Verdict::Up(_) => Self::UP,
            Verdict::Stalled => Self::STALLED,
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
            Verdict::Stalled => None,
        }
    }

    /// Whether somebody ought to be told.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        match self {
            Verdict::Up(Status::Ok | Status::Degraded) => false,
            Verdict::Up(Status::Critical | Status::Stall) | Verdict::Stalled => true,
        }
    }
}

/// `up`, `up (degraded)`, `up (critical)`, `stalled`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Up(Status::Ok) | Verdict::Stalled => f.write_str(self.as_str()),
            Verdict::Up(status) => write!(f, "up ({status})"),
        }
    }
}

/// Why a verdict changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The first beat of an agent that was not known.
    FirstBeat,
    /// The agent reports another status than before.
    Reported,
    /// A beat came after the deadline had passed.
    Recovered,
    /// Another process has this pid now: a new incarnation.
    Restarted,
    /// Nothing came from an agent of this host until the deadline; nothing else is known.
    Silent,
    /// Nothing came from an agent of another host until the deadline; nothing else can be known.
    Unreachable,
    /// It said that it panicked: its terminal frame came, or nothing came after that until the deadline.
    Panicked,
}

impl Cause {
    /// Every cause's name, in the order in which metrics list them.
    pub const NAMES: [&'static str; 7] =
        ["first_beat", "reported", "recovered", "restarted", "silent", "unreachable", "panicked"];

    /// Its place in [`Cause::NAMES`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Cause::FirstBeat => 0,
            Cause::Reported => 1,
            Cause::Recovered => 2,
            Cause::Restarted => 3,
            Cause::Silent => 4,
            Cause::Unreachable => 5,
            Cause::Panicked => 6,
        }
    }

    /// The value of the metric label `cause`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_this() {
        use Status::{Critical, Ok};
        let table = [
            (Verdict::Up(Ok), Event::Beat(Ok), Verdict::Up(Ok)),
            (Verdict::Up(Ok), Event::Beat(Critical), Verdict::Up(Critical)),
            (Verdict::Up(Critical), Event::DeadlinePassed, Verdict::Stalled),
            (Verdict::Stalled, Event::Beat(Ok), Verdict::Up(Ok)),
            (Verdict::Stalled, Event::DeadlinePassed, Verdict::Stalled),
        ];
        for (from, event, to) in table {
            assert_eq!(from.next(event), to, "{from} on {event:?}");
        }
    }

    #[test]
    fn critical_and_stalled_are_alarms() {
        assert!(!Verdict::Up(Status::Degraded).is_alarm());
        assert!(Verdict::Up(Status::Critical).is_alarm());
        assert!(Verdict::Stalled.is_alarm());
    }
}
