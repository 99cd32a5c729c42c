//! The directory of a file: a name that must outlive a crash of the host is written out with it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The directory in which a path's last name stands.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Opens a directory. Nothing else that has the name is opened, or waited for.
///
/// # Errors
///
/// It is no directory, or what the kernel says.
pub(crate) fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

/// Waits until the names in a file's directory are on the disk.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    open_directory(directory_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_stands_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("/run/file")), Path::new("/run"));
        sync_directory_of(Path::new("file")).unwrap();
    }

    #[test]
    fn a_pipe_in_the_place_of_a_directory_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(open_directory(&pipe).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(sync_directory_of(&pipe.join("file")).is_err());
    }
}
