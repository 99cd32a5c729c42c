//! Verdicts, their causes, and the transitions from one to the next.

pub(in crate::domain::tracker) mod cause;
pub(in crate::domain::tracker) mod incident;
pub(in crate::domain::tracker) mod problem;
pub(in crate::domain::tracker) mod transition;
pub(in crate::domain::tracker) mod verdict;
