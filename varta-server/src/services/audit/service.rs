//! Opens the audit log, and starts the thread that writes it.

use crate::base::error::Error;
use crate::services::audit::guarded::GuardedLog;
use crate::services::audit::head::head_path;
use crate::services::audit::metrics::missing_records;
use crate::services::audit::options::AuditOptions;
use crate::services::audit::writer::AuditWriter;
use crate::services::context::Context;

/// The capability before it runs. Without `--audit-log` it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct Audit {
    log: Option<GuardedLog>,
}

impl Audit {
    /// Opens the log of `--audit-log`, if given.
    ///
    /// # Errors
    ///
    /// See [`GuardedLog::open`].
    pub(crate) fn open(options: Option<&AuditOptions>, context: &Context) -> Result<Self, Error> {
        Ok(Audit { log: options.map(|options| GuardedLog::open(options, &context.faults)).transpose()? })
    }

    /// Whether there is to be an audit log.
    pub(crate) const fn is_asked(&self) -> bool {
        self.log.is_some()
    }

    /// Starts the thread that writes, and returns the handle to it. The thread ends when the last clone of
    /// the handle is dropped and all records are written.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(self, context: &mut Context) -> Result<AuditWriter, Error> {
        let missing = missing_records(&context.registry);
        let Some(log) = self.log else { return Ok(AuditWriter::none()) };
        let path = log.path().to_path_buf();
        let (writer, ended) = AuditWriter::start(log, missing).map_err(|source| Error::Runtime {
            action: "start the thread that writes the audit log",
            source,
        })?;
        context.spawn_thread("audit log", "thread that writes the audit log", ended);
        let (stop, checked) = (context.stop.clone(), writer.checker());
        let mut changes = context.watcher.watch(&path);
        let _ = context.watcher.watch(&head_path(&path));
        context.spawn("audit files", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = changes.next() => checked.check(),
                }
            }
        });
        Ok(writer)
    }
}
