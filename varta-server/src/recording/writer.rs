//! The thread that writes a recording, and the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use metrics::{Counter, Gauge};
use tokio::sync::oneshot;

use super::RecordOptions;
use super::encode::{encode, encode_beat, encode_control};
use super::format::{Header, Record};
use super::recorder::{Entry, QUEUE, Recorder};
use crate::beat::ReceivedBeat;
use crate::error::Error;
use crate::metrics::{Registry, names};

/// How much is collected before it is written, in bytes, if more is waiting.
const BUFFER: usize = 256 << 10;

/// A new file, to be filled.
#[derive(Debug)]
pub(crate) struct RecordingFile {
    path: PathBuf,
    file: File,
    limit: u64,
}

/// What is told of a recording.
pub(crate) struct RecordingMetrics {
    dropped: Counter,
    bytes: Gauge,
    active: Gauge,
}

impl RecordingMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        RecordingMetrics {
            dropped: registry.counter(names::RECORDING_DROPPED, &[]),
            bytes: registry.gauge(names::RECORDING_BYTES, &[]),
            active: registry.gauge(names::RECORDING_ACTIVE, &[]),
        }
    }
}

impl RecordingFile {
    /// Makes the file, which only its owner can read.
    ///
    /// # Errors
    ///
    /// When something has its name, or it cannot be made.
    pub(crate) fn create(options: &RecordOptions) -> Result<Self, Error> {
        let RecordOptions { path, limit } = options.clone();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match options.open(&path) {
            Ok(file) => Ok(RecordingFile { path, file, limit }),
            Err(error) => {
                let fault = if error.kind() == io::ErrorKind::AlreadyExists {
                    "is there already, and a recording is not written over; move it away, or give another name with \
                     --record"
                        .to_owned()
                } else {
                    format!("cannot be made for the recording: {error}; see --record")
                };
                Err(Error::Recording { path, fault })
            }
        }
    }

    /// Starts the thread that writes. It ends when the recorder is dropped and what was put there is written, and says so;
    /// or before, when the file is full or fails.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(
        self,
        header: &Header,
        metrics: RecordingMetrics,
    ) -> io::Result<(Recorder, oneshot::Receiver<()>)> {
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
        let (done, is_done) = oneshot::channel();
        let writer =
            Writer { path, file, limit, room: limit, buffer: header.encode().to_vec(), queue, metrics };
        // Nobody joins it: a disk that hangs must not keep the server from ending.
        thread::Builder::new().name("varta-record".to_owned()).spawn(move || {
            writer.run();
            // Whoever waited may have given up.
            let _ = done.send(());
        })?;
        Ok((recorder, is_done))
    }
}

/// The thread's own.
pub(super) struct Writer<W> {
    pub(super) path: PathBuf,
    pub(super) file: W,
    pub(super) limit: u64,
    /// How many bytes may still be written, those in the buffer included.
    pub(super) room: u64,
    /// Whole records.
    pub(super) buffer: Vec<u8>,
    pub(super) queue: Receiver<Entry>,
    pub(super) metrics: RecordingMetrics,
}

/// Why a recording ends before the server does.
enum End {
    Full,
    Failed(io::Error),
}

impl<W: Write> Writer<W> {
    pub(super) fn run(mut self) {
        self.metrics.active.set(1.0);
        match self.write_all() {
            Ok(()) => {}
            Err(End::Full) => tracing::info!(
                target: "varta::recording",
                limit = self.limit,
                "{}: the recording is as long as it may be (--record-limit {}), and ends; this server goes on",
                self.path.display(),
                self.limit
            ),
            Err(End::Failed(error)) => tracing::warn!(
                target: "varta::recording",
                "{}: the recording cannot be written: {error}; it ends here, and this server goes on",
                self.path.display()
            ),
        }
        self.metrics.active.set(0.0);
    }

    /// Writes until nobody puts anything into the queue any more. What waits is written together, and at once: a recording
    /// ends with what came before its server was killed.
    fn write_all(&mut self) -> Result<(), End> {
        self.flush()?;
        while let Ok(entry) = self.queue.recv() {
            let mut added = self.add_entry(entry);
            while added.is_ok()
                && self.buffer.len() < BUFFER
                && let Ok(entry) = self.queue.try_recv()
            {
                added = self.add_entry(entry);
            }
            self.flush()?;
            added?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), End> {
        self.file.write_all(&self.buffer).map_err(End::Failed)?;
        self.room -= self.buffer.len() as u64;
        self.buffer.clear();
        self.metrics.bytes.set((self.limit - self.room) as f64);
        Ok(())
    }

    fn add_entry(&mut self, entry: Entry) -> Result<(), End> {
        let (answers, beats, controls, turned_away) = match entry {
            Entry::Event(record) => return self.add(|out| encode(&record, out)),
            Entry::Batch { answers, beats, controls, turned_away } => (answers, beats, controls, turned_away),
        };
        for (pid, identity) in answers {
            self.add(|out| encode(&Record::Process { pid, identity }, out))?;
        }
        let mut taken = 0;
        for (before, control) in &controls {
            self.add_beats(&beats[taken..*before])?;
            taken = *before;
            self.add(|out| encode_control(control, out))?;
        }
        self.add_beats(&beats[taken..])?;
        match turned_away {
            Some((transport, at)) => self.add(|out| encode(&Record::Loss { transport, at }, out)),
            None => Ok(()),
        }
    }

    fn add_beats(&mut self, beats: &[ReceivedBeat]) -> Result<(), End> {
        beats.iter().try_for_each(|beat| self.add(|out| encode_beat(beat, out)))
    }

    /// Adds a whole record, or none of it.
    fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), End> {
        let before = self.buffer.len();
        encode(&mut self.buffer);
        if self.buffer.len() as u64 <= self.room {
            return Ok(());
        }
        self.buffer.truncate(before);
        Err(End::Full)
    }
}
