//! The thread that writes a recording to its file.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use crate::domain::beat::ReceivedBeat;
use crate::engine::InputRecord;
use crate::engine::tap::TapEntry;
use crate::services::recording::encode::{encode, encode_beat, encode_control};
use crate::services::recording::metrics::RecordingMetrics;

/// The most bytes collected before a write while more is queued.
const BUFFER: usize = 256 << 10;

/// The state of the thread.
pub(super) struct Writer<W> {
    pub(super) path: PathBuf,
    pub(super) file: W,
    pub(super) limit: u64,
    /// How many bytes may still be written, including the buffer.
    pub(super) room: u64,
    /// Whole records to write.
    pub(super) buffer: Vec<u8>,
    pub(super) queue: Receiver<TapEntry>,
    pub(super) metrics: RecordingMetrics,
}

/// Why a recording ends before the server.
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

    /// Writes until the queue is closed. Queued entries are written together, and at once, so that a
    /// recording is complete up to the moment at which its server is killed.
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

    fn add_entry(&mut self, entry: TapEntry) -> Result<(), End> {
        let (answers, beats, controls, turned_away) = match entry {
            TapEntry::Event(record) => return self.add(|out| encode(&record, out)),
            TapEntry::Batch { answers, beats, controls, turned_away } => {
                (answers, beats, controls, turned_away)
            }
        };
        for (pid, identity) in answers {
            self.add(|out| encode(&InputRecord::Process { pid, identity }, out))?;
        }
        let mut taken = 0;
        for (before, control) in &controls {
            self.add_beats(&beats[taken..*before])?;
            taken = *before;
            self.add(|out| encode_control(control, out))?;
        }
        self.add_beats(&beats[taken..])?;
        match turned_away {
            Some((transport, at)) => self.add(|out| encode(&InputRecord::Loss { transport, at }, out)),
            None => Ok(()),
        }
    }

    fn add_beats(&mut self, beats: &[ReceivedBeat]) -> Result<(), End> {
        beats.iter().try_for_each(|beat| self.add(|out| encode_beat(beat, out)))
    }

    /// Appends a whole record, or nothing.
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
