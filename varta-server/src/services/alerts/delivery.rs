use crate::services::alerts::alert::Id;

/// Words from the sending tasks that may wait. They wait when there are more.
pub(super) const REPORTS: usize = 1_024;

/// What a sending task has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// An Alertmanager knows that an alert is over, or will not be told any more.
    Ended { alertmanager: usize, id: Id },
    /// The webhook knows that an alert began.
    Said(Id),
    /// The webhook knows that it is over.
    SaidEnded(Id),
}
