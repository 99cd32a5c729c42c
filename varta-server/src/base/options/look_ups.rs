//! What a configuration names outside itself: users, groups, hosts and files.

use crate::base::error::Error;

/// Whether users, groups, hosts and files that options name are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookUps {
    /// They are, and what is not found is a fault.
    Done,
    /// They are not, and have stand-ins: so a configuration can be checked on another host than its own.
    LeftOut,
}

impl LookUps {
    /// What `find` finds, or the stand-in.
    ///
    /// # Errors
    ///
    /// Those of `find`.
    pub(crate) fn find<T>(
        self,
        find: impl FnOnce() -> Result<T, Error>,
        stand_in: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        match self {
            LookUps::Done => find(),
            LookUps::LeftOut => Ok(stand_in()),
        }
    }
}
