//! Atomic replacement of small files: a reader finds the old file or the new one, even after a crash of the
//! host.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::files::directory::sync_directory_of;

/// Replaces the file at `path` by one with this content and mode 0600, and returns once it is on the disk.
/// Meanwhile the new file has the suffix `.new`.
///
/// # Errors
///
/// The error of the system. The old file is unchanged, unless the sync of the directory failed: then the file
/// may be either.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    testing::await_release(path);
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    if let Err(error) = write_out(&unfinished, content).and_then(|()| fs::rename(&unfinished, path)) {
        // Only wastes disk space if that fails, and the next attempt overwrites it.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    // The rename must survive a crash of the host, too.
    sync_directory_of(path)
}

fn write_out(path: &OsStr, content: &[u8]) -> io::Result<()> {
    // A crash may have left one. Whatever else has the name, a pipe or a link, is not opened.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A disk that hangs, as no test can make a real one do.
#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::sync::{Condvar, Mutex, PoisonError};

    static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    static RELEASED: Condvar = Condvar::new();

    /// Writes of this file hang until it is dropped.
    #[derive(Debug)]
    pub(crate) struct HeldFile(PathBuf);

    impl HeldFile {
        pub(crate) fn new(path: &Path) -> Self {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_path_buf());
            HeldFile(path.to_path_buf())
        }
    }

    impl Drop for HeldFile {
        fn drop(&mut self) {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
            RELEASED.notify_all();
        }
    }

    pub(super) fn await_release(path: &Path) {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        drop(RELEASED.wait_while(held, |held| held.contains(path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_name_of_the_unfinished_file_is_neither_waited_for_nor_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let [path, unfinished, precious] =
            ["file", "file.new", "precious"].map(|name| directory.path().join(name));
        nix::unistd::mkfifo(&unfinished, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        replace(&path, b"1").unwrap();
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &unfinished).unwrap();
        replace(&path, b"2").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&precious).unwrap()),
            (b"2".to_vec(), b"precious".to_vec())
        );
        fs::create_dir(&unfinished).unwrap();
        assert!(replace(&path, b"3").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"2");
    }
}
