//! The reports by which a sending task confirms deliveries to [`super::task`].

use crate::services::alerts::alert::Id;

/// Words from the sending tasks that may wait. They wait when there are more.
pub(super) const REPORTS: usize = 1_024;

/// A report of a sending task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// An Alertmanager has accepted the end of an alert, or the task has given it up.
    Ended { alertmanager: usize, id: Id },
    /// The webhook has the start of an alert, or the task has given it up.
    Said(Id),
    /// The webhook has the end of an alert, or the task has given it up.
    SaidEnded(Id),
}
