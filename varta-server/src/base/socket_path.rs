//! What is at the path of a Unix socket before the socket is made.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::base::error::Error;

/// The most bytes of a path in `sockaddr_un`, without the terminating zero.
const MAX_PATH_LEN: usize = 107;

/// Checks that a directory is closed to others.
///
/// # Errors
///
/// It is not, or cannot be looked at.
pub(super) fn check_private(directory: &Path) -> Result<(), Error> {
    let failed = |action| move |source| Error::Socket { path: directory.to_path_buf(), action, source };
    // Not `metadata`: a symlink that another user put into a shared directory is not acceptable.
    let found = fs::symlink_metadata(directory).map_err(failed("look at the socket's directory"))?;
    let owner_is_us = found.uid() == nix::unistd::geteuid().as_raw();
    if !found.is_dir() || !owner_is_us || found.mode() & 0o022 != 0 {
        return Err(Error::UnsafeDirectory { path: directory.to_path_buf() });
    }
    Ok(())
}

/// Checks that the kernel takes a path. `option` names it.
pub(super) fn check_length(path: &Path, option: &'static str) -> Result<(), Error> {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_PATH_LEN {
        return Err(Error::SocketPathTooLong {
            path: path.to_path_buf(),
            option,
            length,
            most: MAX_PATH_LEN,
        });
    }
    Ok(())
}

/// Whether a process listens at `path`. It is not connected to, and no file changes.
///
/// # Errors
///
/// A socket cannot be made there, or it cannot be found out.
pub(super) fn is_served(path: &Path, option: &'static str) -> Result<bool, Error> {
    check_length(path, option)?;
    find(path, option).map(|found| found == Found::Alive)
}

/// What has the name of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The socket of a process that has ended.
    Stale,
    Alive,
}

/// Removes the socket file of a server that has ended.
pub(super) fn remove_stale(path: &Path, option: &'static str) -> Result<(), Error> {
    let failed = |action| move |source| Error::Socket { path: path.to_path_buf(), action, source };
    match find(path, option)? {
        Found::Nothing => Ok(()),
        Found::Stale => {
            fs::remove_file(path).map_err(failed("remove the socket of a server that is no more"))
        }
        Found::Alive => Err(Error::SocketInUse { path: path.to_path_buf(), option }),
    }
}

fn find(path: &Path, option: &'static str) -> Result<Found, Error> {
    let failed = |action| move |source| Error::Socket { path: path.to_path_buf(), action, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed("look at what has the socket's name")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path.to_path_buf(), option });
        }
        Ok(_) => {}
    }
    let probe = UnixDatagram::unbound().map_err(failed("make a socket to see whether a server is there"))?;
    match probe.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Found::Stale),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        // A process that answers, even with another type of socket, is alive.
        Ok(()) => Ok(Found::Alive),
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => Ok(Found::Alive),
        Err(error) => Err(failed("see whether a server is there")(error)),
    }
}
