//! Limits of configured values, and the errors of entries that stand for several agents.

use std::time::Duration;

use varta_proto::control::NameError;

/// The shortest timeout of an agent: below it the scheduling of a general-purpose system decides, not the
/// agent.
pub const MIN_STALL_AFTER: Duration = Duration::from_millis(10);
/// The longest duration of any option.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);
/// The longest time for which the end of a process is no alarm because another may take its place: an alarm
/// that comes later would be of little use.
pub const MAX_REPLACED_WITHIN: Duration = Duration::from_secs(600);

/// The longest time for a command that the server runs.
pub(crate) const MAX_COMMAND_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Why a rule, an expected agent or a pause was refused. Earlier entries are unaffected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The maximum number of entries is reached.
    #[error("there are more than {most}, which is the most that there may be")]
    TooMany {
        /// The maximum.
        most: usize,
    },
    /// An earlier entry has the same name, so this one would never apply.
    #[error("name: `{name}` stands in an earlier entry, and the first one counts; remove one of the two")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// The name is not valid for an agent.
    #[error("name: `{name}`: {fault}")]
    NotAName {
        /// The given name.
        name: String,
        /// What is wrong with it.
        fault: NameError,
    },
    /// The name is not a valid pattern.
    #[error("name: a pattern has 1 to {most} characters, and none of them is a control character")]
    NotAPattern {
        /// The most characters of a pattern.
        most: usize,
    },
    /// The reason of a pause is not valid.
    #[error("reason: has 1 to {most} bytes, and none of its characters is a control character")]
    NotAReason {
        /// The most bytes of a reason.
        most: usize,
    },
    /// A pause ends before it begins.
    #[error("until: is not after from")]
    EndsBeforeItBegins,
    /// A grace is too long.
    #[error("{key}: {given:?} is more than 10 minutes")]
    GraceTooLong {
        /// The key of the entry.
        key: &'static str,
        /// The given duration.
        given: Duration,
    },
    /// A duration is too short or too long.
    #[error("{key}: {given:?} is not between {MIN_STALL_AFTER:?} and 366 days")]
    OutOfRange {
        /// The key of the entry.
        key: &'static str,
        /// The given duration.
        given: Duration,
    },
}

/// Checks that a grace, which may be zero, is not too long.
pub(crate) fn check_grace(key: &'static str, given: Duration) -> Result<(), EntryError> {
    if given > MAX_REPLACED_WITHIN {
        return Err(EntryError::GraceTooLong { key, given });
    }
    Ok(())
}

/// Checks that a duration of an entry is within the limits.
pub(crate) fn check_duration(key: &'static str, given: Duration) -> Result<(), EntryError> {
    if given < MIN_STALL_AFTER || given > MAX_DURATION {
        return Err(EntryError::OutOfRange { key, given });
    }
    Ok(())
}
