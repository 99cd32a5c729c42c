//! The one way to open a file whose name came from outside: it never waits, and gives regular files only.
//!
//! A pipe without another end, a terminal or a device in the place of a file would otherwise hold up the start
//! until somebody kills the server.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What becomes of a path that leads to a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symlink {
    Followed,
    Refused,
}

/// Why a file was not opened.
#[derive(Debug)]
pub(crate) enum OpenFault {
    Io(io::Error),
    Symlink,
    NotAFile,
}

impl From<OpenFault> for io::Error {
    fn from(fault: OpenFault) -> Self {
        let refused = |fault| io::Error::new(io::ErrorKind::InvalidInput, fault);
        match fault {
            OpenFault::Io(error) => error,
            OpenFault::Symlink => refused("it is a symlink; name the file itself"),
            OpenFault::NotAFile => refused("it is not a regular file"),
        }
    }
}

/// Opens a file by these options, whose own flags for the kernel are replaced. Nothing is read or written.
///
/// # Errors
///
/// It is no regular file, or a symlink and those are refused; or the error of the kernel.
pub(crate) fn open(
    options: &mut OpenOptions,
    path: &Path,
    symlink: Symlink,
) -> Result<(File, Metadata), OpenFault> {
    let no_follow = if symlink == Symlink::Refused { libc::O_NOFOLLOW } else { 0 };
    let opened = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | no_follow).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) if symlink == Symlink::Refused => OpenFault::Symlink,
        // A socket, or a pipe that is opened for writing and that nobody reads.
        Some(libc::ENXIO) => OpenFault::NotAFile,
        _ => OpenFault::Io(error),
    })?;
    let metadata = file.metadata().map_err(OpenFault::Io)?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(OpenFault::NotAFile) }
}

/// Whether a file belongs to this server's user or to root.
pub(crate) fn is_ours_or_roots(metadata: &Metadata) -> bool {
    metadata.uid() == nix::unistd::geteuid().as_raw() || metadata.uid() == 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_whatever_it_is_opened_for() {
        let directory = tempfile::tempdir().unwrap();
        let [pipe, socket] = ["pipe", "socket"].map(|name| directory.path().join(name));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let _socket = UnixListener::bind(&socket).unwrap();
        for path in [pipe.as_path(), socket.as_path(), Path::new("/dev/zero")] {
            for [reads, writes] in [[true, false], [false, true], [true, true]] {
                let mut options = OpenOptions::new();
                options.read(reads).write(writes).create(writes).mode(0o600);
                let refused = open(&mut options, path, Symlink::Followed).unwrap_err();
                assert!(matches!(refused, OpenFault::NotAFile), "{}: {refused:?}", path.display());
            }
        }
    }

    #[test]
    fn a_symlink_is_followed_only_where_it_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["file", "link"].map(|name| directory.path().join(name));
        fs::write(&path, "123").unwrap();
        symlink(&path, &link).unwrap();
        let mut options = OpenOptions::new();
        options.read(true);
        assert_eq!(open(&mut options, &link, Symlink::Followed).unwrap().1.len(), 3);
        let refused = io::Error::from(open(&mut options, &link, Symlink::Refused).unwrap_err());
        assert_eq!(refused.to_string(), "it is a symlink; name the file itself");
    }
}
