//! Writes pauses to the disk, and waits for that up to a limit.

use std::path::Path;
use std::time::Duration;

use crate::base::files::coalescing_writer::CoalescingWriter;
use crate::services::maintenance::pause::Pause;
use crate::services::maintenance::pause_file::PauseFile;
use crate::services::maintenance::pauses::Pauses;

/// The longest wait for a write: less than a client waits for its response.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// The result of persisting the pauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// They are on the disk.
    Written,
    /// There is no state directory.
    Nowhere,
    /// They could not be written, with the fault.
    Failed(String),
}

/// The pauses, and the file in which they outlive this server.
#[derive(Debug)]
pub(super) struct Persister {
    pauses: Pauses,
    /// `None` without `--state-dir`.
    file: Option<(PauseFile, CoalescingWriter<Vec<Pause>>)>,
}

impl Persister {
    pub(super) fn new(pauses: Pauses, file: Option<PauseFile>) -> Self {
        let file = file.map(|file| (file.clone(), CoalescingWriter::new(write_to(file))));
        Persister { pauses, file }
    }

    /// Where the pauses are kept; `None` without a state directory.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(file, _)| file.path())
    }

    /// Whether there is a state directory.
    pub(super) fn has_place(&self) -> bool {
        self.file.is_some()
    }

    /// Persists the present schedule, and returns the result. A write that takes too long is reported as
    /// failed, and completes when the disk permits.
    pub(super) async fn keep(&self) -> WriteOutcome {
        let Some((file, writer)) = &self.file else { return WriteOutcome::Nowhere };
        let written = writer.put(|| self.pauses.look(|list| list.asked().cloned().collect()));
        match tokio::time::timeout(WRITTEN_WITHIN, written).await {
            Ok(Ok(())) => WriteOutcome::Written,
            Ok(Err(fault)) => WriteOutcome::Failed(describe(file, &fault)),
            Err(_) => {
                let fault = describe(file, &format!("the disk has not taken it for {WRITTEN_WITHIN:?}"));
                log(&fault);
                WriteOutcome::Failed(fault)
            }
        }
    }
}

/// Writes pauses to a file, and logs a failure, also when the requester no longer waits.
fn write_to(file: PauseFile) -> impl Fn(&Vec<Pause>) -> std::io::Result<()> {
    move |pauses| file.write(pauses).inspect_err(|error| log(&describe(&file, &error.to_string())))
}

fn describe(file: &PauseFile, fault: &str) -> String {
    format!("{}: cannot be written: {fault}", file.path().display())
}

/// Logs that the file is out of date.
fn log(fault: &str) {
    tracing::error!(
        target: "varta::maintenance",
        "{fault}; a restart goes by the pauses that were kept before"
    );
}
