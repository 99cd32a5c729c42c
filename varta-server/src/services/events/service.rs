use std::io;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use crate::base::error::Error;
use crate::base::files::append_log::AppendFile;
use crate::domain::tracker::Transition;
use crate::services::events::metrics::EventsMeans;
use crate::services::events::options::EventsOptions;
use crate::services::events::writer::{Writer, open_alone};

/// The file, open and not yet written to.
#[derive(Debug)]
pub(crate) struct EventsFile {
    pub(super) options: EventsOptions,
    pub(super) file: AppendFile,
}

impl EventsFile {
    /// The value of the metric label `sink`.
    pub(crate) const SINK: &str = "events";

    /// Opens the file; makes it if it is not there.
    ///
    /// # Errors
    ///
    /// When that fails, it is a symlink or no regular file, or another server has it.
    pub(crate) fn open(options: &EventsOptions) -> Result<Self, Error> {
        let file = open_alone(&options.path).map_err(|error| {
            let fault = match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("{error}; stop it, or give this one another file with --events-file")
                }
                _ => format!("cannot be opened for events: {error}; see --events-file"),
            };
            Error::file(&options.path, fault)
        })?;
        Ok(EventsFile { options: options.clone(), file })
    }

    /// Starts the thread. It ends when nobody can put anything into the queue any more and what is there is written, and
    /// says so.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(
        self,
        means: EventsMeans,
        queue: mpsc::Receiver<Transition>,
    ) -> io::Result<oneshot::Receiver<()>> {
        let EventsFile { options, file } = self;
        let path = options.path.display();
        tracing::info!(
            target: "varta::events",
            %path,
            limit = options.limit,
            keep = options.keep,
            "writing events to {path}"
        );
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let writer = Writer::new(options, file, means, queue);
        let (done, is_done) = oneshot::channel();
        // Nobody joins it: a disk that hangs must not keep the server from ending.
        thread::Builder::new().name("varta-events".to_owned()).spawn(move || {
            runtime.block_on(writer.run());
            // Whoever waited may have given up.
            let _ = done.send(());
        })?;
        Ok(is_done)
    }
}
