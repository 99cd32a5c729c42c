//! Files that grow by whole lines, and are renamed when they are long enough.
//!
//! What the audit log and the file of events have in common. A line is in such a file as a whole or not at all, also when
//! the disk is full in the middle of it.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::files::directory::{directory_of, sync_directory_of};
use crate::base::files::lock::try_lock;

/// A file that is open for appending, and no symlink.
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: File,
    /// The bytes of whole lines.
    length: u64,
    /// Whether a write failed and may have left part of a line behind them.
    is_torn: bool,
    #[cfg(test)]
    pub(crate) disk: testing::Disk,
}

impl AppendFile {
    /// Opens a file; makes it, with this mode, if it is not there.
    ///
    /// # Errors
    ///
    /// What the kernel says; or that it is a symlink or no regular file.
    pub(crate) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        Self::open_by(OpenOptions::new().create(true).mode(mode), path)
    }

    /// Makes a file, with this mode.
    ///
    /// # Errors
    ///
    /// What the kernel says, [`io::ErrorKind::AlreadyExists`] when the name is taken.
    pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<Self> {
        Self::open_by(OpenOptions::new().create_new(true).mode(mode), path)
    }

    /// Opens a file if it is there.
    ///
    /// # Errors
    ///
    /// As [`AppendFile::open`].
    pub(crate) fn open_existing(path: &Path) -> io::Result<Option<Self>> {
        match Self::open_by(&mut OpenOptions::new(), path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn open_by(options: &mut OpenOptions, path: &Path) -> io::Result<Self> {
        // Without waiting: a pipe that nobody reads would hold up the start for ever.
        let options = options.read(true).append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::new(error.kind(), "it is a symlink; name the file itself"),
            _ => error,
        })?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(AppendFile {
            file,
            length: found.len(),
            is_torn: false,
            #[cfg(test)]
            disk: testing::Disk::default(),
        })
    }

    /// Whether nobody but this server's user and root may write to it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn is_ours_alone(&self) -> io::Result<bool> {
        self.file.metadata().map(|found| is_ours_alone(&found))
    }

    /// Locks it until it is closed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when another server has it; else what the kernel says.
    pub(crate) fn lock(&self) -> io::Result<()> {
        try_lock(&self.file).map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::WouldBlock, "another server writes to this file")
            }
            TryLockError::Error(error) => error,
        })
    }

    /// The bytes of whole lines in it.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// The file, to be read from its beginning. What is appended goes to its end all the same.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn rewound(&self) -> io::Result<&File> {
        (&self.file).rewind()?;
        Ok(&self.file)
    }

    /// Appends whole lines, in one write if the kernel takes them in one.
    ///
    /// # Errors
    ///
    /// What the kernel says. None of it is in the file then: what was written of it is cut off, now or before the next
    /// lines.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.mend()?;
        // Somebody else may have cut it, and what is written goes to the end that it has now.
        self.length = self.file.metadata()?.len();
        let written = self.write_all(lines);
        match written {
            Ok(()) => self.length += lines.len() as u64,
            Err(_) => {
                self.is_torn = true;
                // Where that fails too it is done before the next lines.
                let _ = self.mend();
            }
        }
        written
    }

    fn write_all(&self, lines: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(most) = self.disk.takes.filter(|most| *most < lines.len()) {
            (&self.file).write_all(&lines[..most])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        (&self.file).write_all(lines)
    }

    /// Ends the last line, if whoever wrote it did not.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        let Some(place) = self.length.checked_sub(1) else { return Ok(()) };
        let mut last = [b'\n'];
        self.file.read_at(&mut last, place)?;
        if last == [b'\n'] { Ok(()) } else { self.append(b"\n") }
    }

    /// Cuts the file off after so many bytes.
    ///
    /// # Errors
    ///
    /// What the kernel says. Nothing is appended before it has succeeded.
    pub(crate) fn cut(&mut self, length: u64) -> io::Result<()> {
        self.length = length;
        self.is_torn = true;
        self.mend()
    }

    /// Cuts off what a write that failed has left of a line, if that was not possible before. To be called before the file
    /// gets another name.
    ///
    /// # Errors
    ///
    /// What the kernel says. Nothing has changed then.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        if !self.is_torn {
            return Ok(());
        }
        // It is not made longer: somebody else may have cut it.
        let found = self.file.metadata()?.len();
        if found > self.length {
            #[cfg(test)]
            testing::Disk::check(self.disk.refuses_cuts)?;
            self.file.set_len(self.length)?;
        }
        self.length = self.length.min(found);
        self.is_torn = false;
        Ok(())
    }

    /// Waits until what is in it is on the disk.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        testing::Disk::check(self.disk.refuses_syncs)?;
        self.file.sync_data()
    }

    /// Whether this is still the file with that name. If it is, and somebody else has cut it meanwhile, its length is that.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn is_at(&mut self, path: &Path) -> io::Result<bool> {
        if !self.is_torn {
            self.length = self.file.metadata()?.len();
        }
        is_at(&self.file, path)
    }

    /// Whether it has no name any more, so that nobody else can find it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }
}

/// Whether an open file is still the one with that name.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether nobody but this server's user and root may write to a file.
pub(crate) fn is_ours_alone(found: &Metadata) -> bool {
    let us = nix::unistd::geteuid().as_raw();
    (found.uid() == us || found.uid() == 0) && found.mode() & 0o022 == 0
}

/// The name of a file that was renamed so often: `FILE.1` is the newest of them.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The files that had this name before, with their numbers, the newest first.
///
/// # Errors
///
/// What the kernel says of the directory.
pub(crate) fn rotated(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut start = OsString::from(name);
    start.push(".");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory_of(path))? {
        let other = entry?.file_name();
        let number = other.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
        let number = number.and_then(|digits| str::from_utf8(digits).ok()?.parse::<u32>().ok());
        // Written as we write it: `FILE.01` is somebody else's.
        if let Some(number) = number
            && number > 0
            && numbered(Path::new(name), number).as_os_str() == other
        {
            found.push((number, numbered(path, number)));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Renames FILE to FILE.1, that to FILE.2 and so on, and removes those beyond the first `keep`, if that is not 0.
///
/// # Errors
///
/// What the kernel says. Some may have been renamed; a number that is free then is used the next time.
pub(crate) fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let older = rotated(path)?;
    let in_a_row = older.iter().zip(1..).take_while(|((number, _), place)| number == place).count();
    for (place, (number, file)) in older.iter().enumerate().rev() {
        let next = if place < in_a_row { number.saturating_add(1) } else { *number };
        if keep != 0 && next > keep {
            fs::remove_file(file)?;
        } else if next != *number {
            fs::rename(file, numbered(path, next))?;
        }
    }
    fs::rename(path, numbered(path, 1))?;
    sync_directory_of(path)
}

/// What no test can ask of a real disk.
#[cfg(test)]
pub(crate) mod testing {
    use std::io;

    /// How a disk fails.
    #[derive(Debug, Default)]
    pub(crate) struct Disk {
        /// How many bytes of a write it takes; `None` for all.
        pub(crate) takes: Option<usize>,
        pub(crate) refuses_cuts: bool,
        pub(crate) refuses_syncs: bool,
    }

    impl Disk {
        pub(super) fn check(refuses: bool) -> io::Result<()> {
            if refuses { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        }
    }
}
