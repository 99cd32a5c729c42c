//! Reads the file of a recording, which is untrusted input.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::base::error::Error;
use crate::base::files::bounded_read::{self, Symlink};
use crate::base::progress::Progress;
use crate::engine::InputRecord;
use crate::services::recording::decode::Decoder;
use crate::services::recording::format::{Block, Header, LENGTH};

/// An open recording. Its length is fixed when it is opened, so that every pass over it reads the same
/// records.
#[derive(Debug)]
pub(super) struct RecordingReader {
    path: PathBuf,
    file: File,
    pub(super) length: u64,
    pub(super) header: Header,
}

/// An iterator over the records.
pub(super) struct Records<'a> {
    recording: &'a RecordingReader,
    input: BufReader<Box<dyn Read + 'a>>,
    /// The offset of the next block.
    offset: u64,
    decoder: Decoder,
    /// The offset of the present record.
    begin: u64,
}

impl RecordingReader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no recording.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |fault: String| Error::file(path, fault);
        let opened = bounded_read::open(path, Symlink::Followed);
        let (file, metadata) = opened.map_err(|error| failed(error.to_string()))?;
        let mut block = [0; LENGTH];
        match (&file).read_exact(&mut block) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(failed(format!(
                    "is not a recording of varta-server: it has {} bytes, fewer than a header",
                    metadata.len()
                )));
            }
            Err(error) => return Err(failed(format!("cannot be read: {error}"))),
        }
        let header = Header::decode(&block).map_err(|fault| failed(fault.to_string()))?;
        Ok(RecordingReader { path: path.to_path_buf(), file, length: metadata.len(), header })
    }

    /// Begins a pass over all records.
    pub(super) fn records(&self, progress: &Progress) -> Result<Records<'_>, Error> {
        let offset = LENGTH as u64;
        (&self.file)
            .seek(SeekFrom::Start(offset))
            .map_err(|error| self.failed(offset, &error.to_string()))?;
        let file: Box<dyn Read + '_> = Box::new(progress.reading(&self.file));
        let input = BufReader::with_capacity(256 << 10, file);
        Ok(Records { recording: self, input, offset, decoder: Decoder::default(), begin: offset })
    }

    fn failed(&self, offset: u64, fault: &str) -> Error {
        Error::file(&self.path, format!("the record at byte {offset}: {fault}"))
    }
}

impl Records<'_> {
    /// The next record; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file cannot be read any more, or holds an invalid record.
    pub(super) fn next(&mut self) -> Result<Option<InputRecord>, Error> {
        self.begin = self.offset;
        while self.offset + LENGTH as u64 <= self.recording.length {
            let mut block: Block = [0; LENGTH];
            let read = self.input.read_exact(&mut block);
            read.map_err(|error| self.recording.failed(self.offset, &format!("cannot be read: {error}")))?;
            let record = self.decoder.decode(&block);
            let record = record.map_err(|fault| {
                let begin = self.begin;
                let advice =
                    format!("{fault}; what stands before it can be replayed: truncate -s {begin} a copy");
                self.recording.failed(self.offset, &advice)
            })?;
            self.offset += LENGTH as u64;
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }

    /// The length of an incomplete last record in bytes, once the end is reached.
    pub(super) fn torn(&self) -> u64 {
        self.recording.length - self.begin
    }
}
