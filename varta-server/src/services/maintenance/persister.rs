//! Has pauses written to the disk, and waits for that, but not for long.

use std::time::Duration;

use crate::base::files::coalescing_writer::CoalescingWriter;
use crate::services::maintenance::pause::Pause;
use crate::services::maintenance::pause_file::KeptFile;
use crate::services::maintenance::pauses::Pauses;

/// How long a write is waited for: less than who asks for a pause waits for an answer.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// What became of the pauses on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// They are there.
    Written,
    /// There is no place for them.
    Nowhere,
    /// They are not there, and why.
    Failed(String),
}

/// The pauses, and the file in which they outlive this server.
#[derive(Debug)]
pub(super) struct Keeper {
    pauses: Pauses,
    /// `None` without `--state-dir`.
    file: Option<(KeptFile, CoalescingWriter<Vec<Pause>>)>,
}

impl Keeper {
    pub(super) fn new(pauses: Pauses, file: Option<KeptFile>) -> Self {
        let file = file.map(|file| (file.clone(), CoalescingWriter::new(write_to(file))));
        Keeper { pauses, file }
    }

    /// Whether there is a place on the disk.
    pub(super) fn has_place(&self) -> bool {
        self.file.is_some()
    }

    /// Has written what is asked for by now, and says what came of it. What takes too long is said to have failed, and is
    /// written when the disk takes it.
    pub(super) async fn keep(&self) -> Kept {
        let Some((file, writer)) = &self.file else { return Kept::Nowhere };
        let written = writer.put(|| self.pauses.look(|list| list.asked().cloned().collect()));
        match tokio::time::timeout(WRITTEN_WITHIN, written).await {
            Ok(Ok(())) => Kept::Written,
            Ok(Err(fault)) => Kept::Failed(describe(file, &fault)),
            Err(_) => {
                let fault = describe(file, &format!("the disk has not taken it for {WRITTEN_WITHIN:?}"));
                log(&fault);
                Kept::Failed(fault)
            }
        }
    }
}

/// Writes pauses to a file, and says in the log when that fails, also when nobody waits for it any more.
fn write_to(file: KeptFile) -> impl Fn(&Vec<Pause>) -> std::io::Result<()> {
    move |pauses| file.write(pauses).inspect_err(|error| log(&describe(&file, &error.to_string())))
}

fn describe(file: &KeptFile, fault: &str) -> String {
    format!("{}: cannot be written: {fault}", file.path().display())
}

/// Says in the log that the file is not what it should be.
fn log(fault: &str) {
    tracing::error!(
        target: "varta::maintenance",
        "{fault}; a restart goes by the pauses that were kept before"
    );
}
