//! Append-only files of whole lines, with rotation.
//!
//! The common part of the audit log and the events file. A line is in the file as a whole or not at all, even
//! if the disk fills up in the middle of it.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::files::directory::{directory_of, sync_directory_of};
use crate::base::files::lock::try_lock;
use crate::base::files::regular_file::{self, Symlink};

/// A regular file, open for appending and not reached through a symlink.
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: File,
    /// The length of all whole lines, in bytes.
    length: u64,
    /// Whether a failed write may have left a part of a line after them.
    is_torn: bool,
    #[cfg(test)]
    pub(crate) disk: testing::Disk,
}

impl AppendFile {
    /// Opens a file, or creates it with this mode.
    ///
    /// # Errors
    ///
    /// The error of the kernel; or the file is a symlink or no regular file.
    pub(crate) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        Self::open_by(OpenOptions::new().create(true).mode(mode), path)
    }

    /// Creates a file with this mode.
    ///
    /// # Errors
    ///
    /// The error of the kernel, [`io::ErrorKind::AlreadyExists`] if the name is taken.
    pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<Self> {
        Self::open_by(OpenOptions::new().create_new(true).mode(mode), path)
    }

    /// Opens a file if it exists.
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
        let (file, found) = regular_file::open(options.read(true).append(true), path, Symlink::Refused)?;
        Ok(AppendFile {
            file,
            length: found.len(),
            is_torn: false,
            #[cfg(test)]
            disk: testing::Disk::default(),
        })
    }

    /// Whether only this server's user and root may write to the file.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn is_ours_alone(&self) -> io::Result<bool> {
        self.file.metadata().map(|found| is_ours_alone(&found))
    }

    /// Locks the file until it is closed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if another server holds the lock; else the error of the kernel.
    pub(crate) fn lock(&self) -> io::Result<()> {
        try_lock(&self.file).map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::WouldBlock, "another server writes to this file")
            }
            TryLockError::Error(error) => error,
        })
    }

    /// The length of all whole lines, in bytes.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// The file, positioned at its beginning for reading. Appends still go to its end.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn rewound(&self) -> io::Result<&File> {
        (&self.file).rewind()?;
        Ok(&self.file)
    }

    /// Appends whole lines, with one write if the kernel accepts that.
    ///
    /// # Errors
    ///
    /// The error of the kernel. Nothing was appended: a partial write is truncated, now or before the next
    /// append.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.mend()?;
        // Another process may have truncated the file, and appends go to its present end.
        self.length = self.file.metadata()?.len();
        let written = self.write_all(lines);
        match written {
            Ok(()) => self.length += lines.len() as u64,
            Err(_) => {
                self.is_torn = true;
                // If that fails too, the next append repeats it.
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

    /// Terminates the last line, if it is not.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        let Some(place) = self.length.checked_sub(1) else { return Ok(()) };
        let mut last = [b'\n'];
        self.file.read_at(&mut last, place)?;
        if last == [b'\n'] { Ok(()) } else { self.append(b"\n") }
    }

    /// Truncates the file to this length in bytes.
    ///
    /// # Errors
    ///
    /// The error of the kernel. Nothing is appended until the truncation has succeeded.
    pub(crate) fn cut(&mut self, length: u64) -> io::Result<()> {
        self.length = length;
        self.is_torn = true;
        self.mend()
    }

    /// Truncates what a failed write left of a line, if that was not possible before. Must be called before
    /// the file is renamed.
    ///
    /// # Errors
    ///
    /// The error of the kernel. Nothing has changed.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        if !self.is_torn {
            return Ok(());
        }
        // Never extends the file, which another process may have truncated.
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

    /// Waits until the content is on the disk.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        testing::Disk::check(self.disk.refuses_syncs)?;
        self.file.sync_data()
    }

    /// Whether `path` still names this file. If so, and the file was truncated meanwhile, the length is
    /// updated.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn is_at(&mut self, path: &Path) -> io::Result<bool> {
        if !self.is_torn {
            self.length = self.file.metadata()?.len();
        }
        is_at(&self.file, path)
    }

    /// The length that the file had, and the shorter one that another program has cut it off to since, each in
    /// bytes. Each cut is returned once.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn take_cut(&mut self) -> io::Result<Option<(u64, u64)>> {
        let found = self.file.metadata()?.len();
        if found >= self.length {
            return Ok(None);
        }
        Ok(Some((std::mem::replace(&mut self.length, found), found)))
    }

    /// Whether the file has no name any more, so that no other process can open it.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }
}

/// Whether `path` still names an open file.
///
/// # Errors
///
/// The error of the kernel.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether only this server's user and root may write to a file.
pub(crate) fn is_ours_alone(found: &Metadata) -> bool {
    let us = nix::unistd::geteuid().as_raw();
    (found.uid() == us || found.uid() == 0) && found.mode() & 0o022 == 0
}

/// The name of the rotated file with this number: `FILE.1` is the newest.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The rotated files of this name with their numbers, the newest first.
///
/// # Errors
///
/// The error of the kernel when reading the directory.
pub(crate) fn rotated(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut start = OsString::from(name);
    start.push(".");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory_of(path))? {
        let other = entry?.file_name();
        let number = other.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
        let number = number.and_then(|digits| str::from_utf8(digits).ok()?.parse::<u32>().ok());
        // Only the canonical form counts: `FILE.01` was not written by this server.
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

/// Renames FILE to FILE.1, FILE.1 to FILE.2 and so on, and removes those beyond the first `keep`, unless that
/// is 0.
///
/// # Errors
///
/// The error of the kernel. Some files may have been renamed; the next rotation fills a gap in the numbers.
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

/// Failures that no test can cause on a real disk.
#[cfg(test)]
pub(crate) mod testing {
    use std::io;

    /// The failures of a disk.
    #[derive(Debug, Default)]
    pub(crate) struct Disk {
        /// How many bytes of a write it accepts; `None` for all.
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
