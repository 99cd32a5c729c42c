//! The file of events: every change of verdict as a line of JSON, for log shippers and scripts.
//!
//! A sink like the log, on a thread of its own, so that no slow or full disk stands in anybody's way. What its lines hold is in
//! docs/EVENTS.md.

mod line;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use metrics::Counter;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use self::writer::Writer;
use crate::append_file::AppendFile;
use crate::clock::Clock;
use crate::error::Error;
use crate::metrics::{Registry, names};
use crate::tracker::Transition;

/// Where the file of events is, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsOptions {
    /// The file that is written. Older ones are beside it: `FILE.1`, `FILE.2` and so on.
    pub path: PathBuf,
    /// The most bytes of one file before the next is begun. A file has at least one line.
    pub limit: u64,
    /// How many older files are kept; 0 for all.
    pub keep: u32,
}

impl EventsOptions {
    /// The most bytes of a file if nobody says otherwise: some 100,000 changes.
    pub const DEFAULT_LIMIT: u64 = 64 << 20;
    /// The least that a file can be limited to.
    pub const SMALLEST_LIMIT: u64 = 4_096;
    /// How many older files are kept if nobody says otherwise.
    pub const DEFAULT_KEEP: u32 = 4;
    /// Its group may read it, for whoever ships it.
    const MODE: u32 = 0o640;

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense, by its name on the command line.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let EventsOptions { ref path, limit, .. } = *self;
        if path.file_name().is_none() {
            let fault = format!("`{}` is no name of a file", path.display());
            return Err(Error::Option { option: "--events-file", fault });
        }
        if limit < Self::SMALLEST_LIMIT {
            let fault = format!("{limit} is less than the least of {} bytes", Self::SMALLEST_LIMIT);
            return Err(Error::Option { option: "--events-limit", fault });
        }
        Ok(())
    }
}

/// The file, open and not yet written to.
#[derive(Debug)]
pub(crate) struct EventsFile {
    options: EventsOptions,
    file: AppendFile,
}

/// What the thread needs beside the file.
pub(crate) struct EventsMeans {
    clock: Clock,
    /// The name of this host.
    host: String,
    write_errors: Counter,
    dropped: Counter,
}

impl EventsMeans {
    /// Registers the counters, so that they are there without a file too.
    pub(crate) fn new(registry: &Registry, clock: Clock, host: String) -> Self {
        let write_errors = registry.counter(names::EVENTS_WRITE_ERRORS, &[]);
        let dropped = registry.counter(names::SINK_DROPPED, &[("sink", EventsFile::SINK)]);
        EventsMeans { clock, host, write_errors, dropped }
    }
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
        let file = open_alone(&options.path).map_err(|error| Error::EventsFile {
            path: options.path.clone(),
            fault: match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("{error}; stop it, or give this one another file with --events-file")
                }
                _ => format!("cannot be opened for events: {error}; see --events-file"),
            },
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

/// Opens the file, or makes it, and keeps other servers out of it.
fn open_alone(path: &Path) -> io::Result<AppendFile> {
    let file = AppendFile::open(path, EventsOptions::MODE)?;
    file.lock()?;
    Ok(file)
}
