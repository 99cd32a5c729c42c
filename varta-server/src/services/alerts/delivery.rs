//! Notifications on their way, and the reports by which sending tasks confirm deliveries to [`super::task`].

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::services::alerts::alert::Id;
use crate::services::alerts::notification::Delivery;

/// Words from the sending tasks that may wait. They wait when there are more.
pub(super) const REPORTS: usize = 1_024;

/// A notification for all receivers that get each one once.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) delivery: Delivery,
    /// The receivers that have yet to take it, refuse it or be given up.
    owed: AtomicUsize,
}

impl Notice {
    pub(super) const fn new(delivery: Delivery, receivers: usize) -> Self {
        Notice { delivery, owed: AtomicUsize::new(receivers) }
    }

    /// Notes that one more receiver is done with it. The report of the last one; `None` for a notification
    /// that is about no alert.
    pub(super) fn settle(&self) -> Option<Report> {
        let is_last = self.owed.fetch_sub(1, Ordering::AcqRel) == 1;
        let id = self.delivery.about.filter(|_| is_last)?;
        Some(if self.delivery.is_end { Report::SaidEnded(id) } else { Report::Said(id) })
    }
}

/// A report of a sending task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// An Alertmanager has accepted the end of an alert, or the task has given it up.
    Ended { alertmanager: usize, id: Id },
    /// All other receivers have the start of an alert, or were given up.
    Said(Id),
    /// All other receivers have the end of an alert, or were given up.
    SaidEnded(Id),
}
