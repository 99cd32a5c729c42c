//! Makes the file of a recording, and starts the thread that writes it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::base::error::Error;
use crate::base::files::directory::make_directory_of;
use crate::base::files::regular_file::{self, Symlink};
use crate::base::worker_thread;
use crate::engine::Recorder;
use crate::engine::tap::QUEUE;
use crate::services::context::{Context, thread_panicked};
use crate::services::recording::format::Header;
use crate::services::recording::metrics::RecordingMetrics;
use crate::services::recording::options::RecordOptions;
use crate::services::recording::writer::Writer;

/// The capability before it runs. Without `--record` it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct Recording {
    file: Option<RecordingFile>,
    /// How long agents may be silent by default, for the header.
    stall_after: Duration,
}

impl Recording {
    /// Creates the file of `--record`, if given. `stall_after` goes into its header.
    ///
    /// # Errors
    ///
    /// See [`RecordingFile::create`].
    pub(crate) fn open(options: Option<RecordOptions>, stall_after: Duration) -> Result<Self, Error> {
        Ok(Recording { file: options.map(RecordingFile::create).transpose()?, stall_after })
    }

    /// Starts the thread that writes, and gives the end at which the tracker's task records.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(crate) fn start(self, context: &mut Context) -> Result<Recorder, Error> {
        let metrics = RecordingMetrics::new(&context.registry);
        let Some(file) = self.file else { return Ok(Recorder::default()) };
        let (recorder, done) = file
            .start(&Header::new(context.clock, self.stall_after), metrics)
            .map_err(|source| Error::Runtime { action: "start the thread that records", source })?;
        let stop = context.stop.clone();
        // It may end when the file is full, and is waited for when the server stops.
        context.spawn("recording", async move {
            stop.cancelled().await;
            done.await.map_err(|_| thread_panicked("thread that records"))
        });
        Ok(recorder)
    }
}

/// A new, empty recording.
#[derive(Debug)]
pub(super) struct RecordingFile {
    path: PathBuf,
    file: File,
    limit: u64,
}

impl RecordingFile {
    /// Creates the file with mode 0600, and its directory with mode 0700 if it is missing.
    ///
    /// # Errors
    ///
    /// The name is taken, or the file cannot be created.
    pub(super) fn create(options: RecordOptions) -> Result<Self, Error> {
        let RecordOptions { path, limit } = options;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let made = make_directory_of(&path, 0o700).and_then(|()| {
            regular_file::open(&mut options, &path, Symlink::Refused).map_err(io::Error::from)
        });
        match made {
            Ok((file, _)) => Ok(RecordingFile { path, file, limit }),
            Err(error) => {
                let fault = if error.kind() == io::ErrorKind::AlreadyExists {
                    "is there already, and a recording is not written over; move it away, or give another name with \
                     --record"
                        .to_owned()
                } else {
                    format!("cannot be made for the recording: {error}; see --record")
                };
                Err(Error::file(path, fault))
            }
        }
    }

    /// Starts the writing thread. It ends once the recorder is dropped and everything queued is written, and
    /// reports that through the receiver; or earlier, when the file is full or a write fails.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(super) fn start(
        self,
        header: &Header,
        metrics: RecordingMetrics,
    ) -> io::Result<(Recorder, worker_thread::Ended)> {
        let RecordingFile { path, file, limit } = self;
        tracing::info!(
            target: "varta::recording",
            path = %path.display(),
            limit,
            "recording what arrives to {}",
            path.display()
        );
        let (to_queue, queue) = sync_channel(QUEUE);
        let recorder = Recorder::new(to_queue, metrics.dropped.clone());
        let writer =
            Writer { path, file, limit, room: limit, buffer: header.encode().to_vec(), queue, metrics };
        Ok((recorder, worker_thread::start("varta-record", move || writer.run())?))
    }
}
