//! A small file that is replaced as a whole: whoever reads it, also after a fall of the host, finds the old one or the new.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::files::directory::sync_directory_of;

/// Puts a file with this content, which only its owner can read, in the place of the one at `path`, and returns when it is
/// on the disk. Meanwhile it is called the same with `.new` behind it.
///
/// # Errors
///
/// What the system says. The old file is as it was, then; only if the directory itself could not be written out may it be
/// either.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    if let Err(error) = write_out(&unfinished, content).and_then(|()| fs::rename(&unfinished, path)) {
        // It is in nobody's way but the disk's, and the next attempt replaces it.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    // The new name is to outlive the host's fall, too.
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
