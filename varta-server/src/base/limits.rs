//! What can be wrong with an entry of the configuration's file that stands for several agents.

use std::time::Duration;

use varta_proto::control::NameError;

/// The least that an agent may be given: below it the timers of a general-purpose system decide, not the agent.
pub const SHORTEST_STALL_AFTER: Duration = Duration::from_millis(10);
/// The longest time for any option.
pub const LONGEST_DURATION: Duration = Duration::from_secs(366 * 86_400);

/// The longest time for a command that the server runs.
pub(crate) const MAX_COMMAND_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Why a rule, an expected agent or a pause was not taken. Those that were taken before stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// There are as many as there may be.
    #[error("there are more than {most}, which is the most that there may be")]
    TooMany {
        /// How many there may be.
        most: usize,
    },
    /// Another entry has the same name, so this one would never count.
    #[error("name: `{name}` stands in an earlier entry, and the first one counts; remove one of the two")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// It is not a name that an agent can have.
    #[error("name: `{name}`: {fault}")]
    NotAName {
        /// What was written.
        name: String,
        /// What is wrong with it.
        fault: NameError,
    },
    /// It is not a pattern.
    #[error("name: a pattern has 1 to {most} characters, and none of them is a control character")]
    NotAPattern {
        /// How many characters it may have.
        most: usize,
    },
    /// It is not a reason for a pause.
    #[error("reason: has 1 to {most} bytes, and none of its characters is a control character")]
    NotAReason {
        /// How many bytes it may have.
        most: usize,
    },
    /// A pause would be over before it is in force.
    #[error("until: is not after from")]
    EndsBeforeItBegins,
    /// A time is too short or too long.
    #[error("{key}: {given:?} is not between {SHORTEST_STALL_AFTER:?} and 366 days")]
    OutOfRange {
        /// The key of the entry.
        key: &'static str,
        /// What was given.
        given: Duration,
    },
}

/// Checks a time of an entry.
pub(crate) fn check_duration(key: &'static str, given: Duration) -> Result<(), EntryError> {
    if given < SHORTEST_STALL_AFTER || given > LONGEST_DURATION {
        return Err(EntryError::OutOfRange { key, given });
    }
    Ok(())
}
