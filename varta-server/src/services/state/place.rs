//! Notices that others have removed or moved the directory or files of the open database.

use crate::base::time::MonoTime;
use crate::metrics::faults::Part;
use crate::services::state::writer::Writer;

impl Writer {
    /// Begins anew where others have removed or moved the directory, its lock, the database or its journal, and
    /// returns whether it tried to.
    pub(super) fn look(&mut self, now: MonoTime) -> bool {
        let is_in_place = matches!(self.directory.is_in_place(), Ok(true));
        if is_in_place && (self.database.is_none() || !self.files.have_gone(&self.path)) {
            return false;
        }
        if self.database.take().is_some() {
            self.metrics.faults.count_replaced(Part::State);
            tracing::warn!(
                target: "varta::state",
                "{}: the database or its directory was removed or moved; another one is begun with the agents that are \
                 known, and the history before is only in what was moved",
                self.path.display()
            );
            self.lose();
        }
        if self.failing.is_some() {
            return false;
        }
        self.write_now(now);
        true
    }
}
