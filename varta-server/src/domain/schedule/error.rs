//! Why a text is no schedule.

/// A text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: {fault}", part.escape_debug())]
pub struct ScheduleError {
    part: String,
    fault: String,
}

impl ScheduleError {
    pub(super) fn new(part: impl Into<String>, fault: impl Into<String>) -> Self {
        ScheduleError { part: part.into(), fault: fault.into() }
    }

    /// The part of the text that is wrong.
    #[must_use]
    pub fn part(&self) -> &str {
        &self.part
    }

    /// What is wrong with it, and what would be right.
    #[must_use]
    pub fn fault(&self) -> &str {
        &self.fault
    }
}
