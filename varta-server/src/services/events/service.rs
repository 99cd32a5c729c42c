//! Opens the file of events, and starts the thread that writes it.

use std::io;

use crate::base::error::Error;
use crate::base::files::append_log::AppendFile;
use crate::base::worker_thread;
use crate::services::context::Context;
use crate::services::events::metrics::{EventsMetrics, SINK};
use crate::services::events::options::EventsOptions;
use crate::services::events::writer::{Writer, open_alone};

/// The capability before it runs. Without `--events-file` it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct Events {
    file: Option<EventsFile>,
}

impl Events {
    /// Opens the file of `--events-file`, if given.
    ///
    /// # Errors
    ///
    /// See [`EventsFile::open`].
    pub(crate) fn open(options: Option<EventsOptions>) -> Result<Self, Error> {
        Ok(Events { file: options.map(EventsFile::open).transpose()? })
    }

    /// Starts the thread that writes. It ends when the subscription ends and all of it is written.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(crate) fn start(self, context: &mut Context) -> Result<(), Error> {
        let metrics = EventsMetrics::new(&context.registry);
        let Some(file) = self.file else { return Ok(()) };
        let transitions = context.subscribe(SINK);
        let path = file.options.path.display();
        tracing::info!(
            target: "varta::events",
            %path,
            limit = file.options.limit,
            keep = file.options.keep,
            "writing events to {path}"
        );
        let writer = Writer::new(file, context.clock, &context.host, metrics, transitions);
        let done = worker_thread::start_async("varta-events", writer.run())
            .map_err(|source| Error::Runtime { action: "start the thread that writes events", source })?;
        context.spawn_thread("events", "thread that writes events", done);
        Ok(())
    }
}

/// The open events file.
#[derive(Debug)]
pub(super) struct EventsFile {
    pub(super) options: EventsOptions,
    pub(super) file: AppendFile,
}

impl EventsFile {
    /// Opens the file; makes it if it is not there.
    ///
    /// # Errors
    ///
    /// When that fails, it is a symlink or no regular file, or another server has it.
    pub(super) fn open(options: EventsOptions) -> Result<Self, Error> {
        let file = open_alone(&options.path).map_err(|error| {
            let fault = match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("{error}; stop it, or give this one another file with --events-file")
                }
                _ => format!("cannot be opened for events: {error}; see --events-file"),
            };
            Error::file(&options.path, fault)
        })?;
        Ok(EventsFile { options, file })
    }
}
