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
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
