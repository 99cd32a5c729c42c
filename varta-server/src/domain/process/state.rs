//! The state of a thread at one moment, as the scheduler sees it.

use std::fmt;

/// The state of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It runs, or waits only for a CPU (`R`).
    Running,
    /// It waits for something, and a signal would wake it (`S`); an idle kernel thread (`I`) counts as this.
    Sleeping,
    /// It waits for something that no signal interrupts, such as a disk or a network file system (`D`).
    Uninterruptible,
    /// A signal has stopped it (`T`).
    Stopped,
    /// A debugger holds it (`t`).
    Traced,
    /// It has ended (`Z`, `X`).
    Ended,
    /// A state that this server does not know.
    Other,
}

impl State {
    /// Every state, in the order in which [`StateCounts`] stores and displays them.
    pub const ALL: [State; 7] = [
        State::Running,
        State::Sleeping,
        State::Uninterruptible,
        State::Stopped,
        State::Traced,
        State::Ended,
        State::Other,
    ];

    /// Decodes the letter of `/proc/PID/stat`.
    pub(crate) const fn from_letter(letter: u8) -> Self {
        match letter {
            b'R' => State::Running,
            b'S' | b'I' => State::Sleeping,
            b'D' => State::Uninterruptible,
            b'T' => State::Stopped,
            b't' => State::Traced,
            b'Z' | b'X' | b'x' => State::Ended,
            _ => State::Other,
        }
    }

    /// The state's name, as in `6 sleeping`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Sleeping => "sleeping",
            State::Uninterruptible => "uninterruptible",
            State::Stopped => "stopped",
            State::Traced => "traced",
            State::Ended => "ended",
            State::Other => "other",
        }
    }

    const fn index(self) -> usize {
        match self {
            State::Running => 0,
            State::Sleeping => 1,
            State::Uninterruptible => 2,
            State::Stopped => 3,
            State::Traced => 4,
            State::Ended => 5,
            State::Other => 6,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number of threads in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts([u32; State::ALL.len()]);

impl StateCounts {
    pub(crate) fn add(&mut self, state: State) {
        self.0[state.index()] += 1;
    }

    /// The number of threads in this state.
    #[must_use]
    pub fn count(&self, state: State) -> u32 {
        self.0[state.index()]
    }

    /// The number of threads counted.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }
}

/// `6 sleeping, 1 uninterruptible`.
impl fmt::Display for StateCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for state in State::ALL {
            let count = self.count(state);
            if count > 0 {
                write!(f, "{separator}{count} {state}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_kept_in_its_place() {
        for (index, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state.index(), index, "{state}");
        }
    }

    #[test]
    fn only_what_there_is_is_shown() {
        let mut states = StateCounts::default();
        assert_eq!(states.to_string(), "");
        for letter in *b"SSRD?" {
            states.add(State::from_letter(letter));
        }
        assert_eq!(states.to_string(), "1 running, 2 sleeping, 1 uninterruptible, 1 other");
        assert_eq!((states.total(), states.count(State::Sleeping)), (5, 2));
    }
}
