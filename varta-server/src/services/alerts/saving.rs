//! The file of alerts while the task runs: when it is written, and what becomes of that.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::clock::WallClock;
use crate::base::files::coalescing_writer::{CoalescingWriter, Written};
use crate::services::alerts::alert_file::{AlertFile, KeptAlerts};
use crate::services::alerts::lifecycle::state::AlertState;

/// The shortest time between two writes of the file.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// The pending write of the file.
pub(super) struct Saving {
    pub(super) file: Option<(AlertFile, CoalescingWriter<KeptAlerts>)>,
    pub(super) is_due: bool,
    not_before: Instant,
    pub(super) writing: Option<Written>,
    is_failing: bool,
}

impl Saving {
    pub(super) fn new(file: Option<AlertFile>) -> Self {
        let file = file.map(|file| {
            let to_write = file.clone();
            (file, CoalescingWriter::new(move |kept: &KeptAlerts| to_write.write(kept)))
        });
        Saving { file, is_due: false, not_before: Instant::now(), writing: None, is_failing: false }
    }

    /// When to start a write; `None` if there is nothing to write or a write is running.
    pub(super) fn next_at(&self) -> Option<Instant> {
        (self.file.is_some() && self.is_due && self.writing.is_none()).then_some(self.not_before)
    }

    /// Begins a write.
    pub(super) fn begin(&mut self, book: &AlertState, now: WallClock) {
        let Some((_, writer)) = &self.file else { return };
        self.is_due = false;
        self.not_before = Instant::now() + SAVE_EVERY;
        self.writing = Some(writer.put(|| KeptAlerts { alerts: book.kept(now), acks: book.kept_acks() }));
    }

    /// Handles the result of a write; a failed one is repeated.
    pub(super) fn finish(&mut self, written: Result<(), String>) {
        let Some((file, _)) = &self.file else { return };
        let path = file.path().display();
        match written {
            Ok(()) if std::mem::take(&mut self.is_failing) => {
                tracing::info!(target: "varta::alerts", "{path}: alerts are kept there again");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        target: "varta::alerts",
                        "{path}: cannot be written: {error}; trying again"
                    );
                }
                self.is_due = true;
            }
        }
    }
}
