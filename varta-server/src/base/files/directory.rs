//! The directory of a file: a name that must outlive a crash of the host is written out with it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The directory in which a path's last name stands.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a directory that is missing, and those above it, with this mode less the umask, and logs that. One
/// that is there stays as it is.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => io::Error::from_raw_os_error(libc::ENOTDIR),
        _ => error,
    })?;
    tracing::info!(
        target: "varta::files",
        path = %path.display(),
        "made the directory {} with mode {mode:04o}",
        path.display()
    );
    Ok(())
}

/// Makes the directory of a file if it is missing, as [`make_directory`]. Whatever else is the matter with it,
/// who opens the file finds out.
///
/// # Errors
///
/// What the kernel says, with the name of the directory.
pub(crate) fn make_directory_of(path: &Path, mode: u32) -> io::Result<()> {
    let directory = directory_of(path);
    if !fs::metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    make_directory(directory, mode).map_err(|error| {
        let fault = format!("its directory {} cannot be made: {error}", directory.display());
        io::Error::new(error.kind(), fault)
    })
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
    fn a_missing_directory_is_made_with_those_above_it_and_one_that_is_there_stays_as_it_is() {
        use std::os::unix::fs::PermissionsExt;
        let outside = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = outside.path().join("log/varta/events.json");
        make_directory_of(&file, 0o700).unwrap();
        assert_eq!([mode(&outside.path().join("log")), mode(&outside.path().join("log/varta"))], [0o700; 2]);
        make_directory_of(&file, 0o750).unwrap();
        assert_eq!(mode(&outside.path().join("log/varta")), 0o700);
        // A link that leads nowhere is not followed, and a file is left to who uses it as a directory.
        std::os::unix::fs::symlink("nowhere", outside.path().join("link")).unwrap();
        let fault = make_directory_of(&outside.path().join("link/file"), 0o700).unwrap_err().to_string();
        assert!(fault.contains("/link cannot be made: "), "{fault}");
        File::create(&file).unwrap();
        make_directory_of(&file.join("below"), 0o700).unwrap();
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
