//! What a configuration relies on at this host: addresses, sockets, directories, files, names of hosts. All of it is
//! only looked at: nothing is made, changed or removed, and no socket of a running server is disturbed.

use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};

use crate::base::error::Error;
use crate::base::files::directory::directory_of;
use crate::base::options::OptionFaults;
use crate::base::socket_path;

/// What was found: faults, and what may be of interest besides.
#[derive(Debug, Default)]
pub(crate) struct HostCheck {
    faults: OptionFaults,
    notes: Vec<String>,
    /// Addresses that others use.
    taken: Vec<Error>,
    /// The sockets at which a server listens.
    served: Vec<PathBuf>,
}

impl HostCheck {
    /// Adds the fault of a result.
    pub(crate) fn result<T>(&mut self, result: Result<T, Error>) {
        self.faults.value(result);
    }

    /// Adds what does not keep a server from starting.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Checks what a part that may be off needs.
    pub(crate) fn section<T>(&mut self, options: &Option<T>, check: impl FnOnce(&T, &mut Self)) {
        if let Some(options) = options {
            check(options, self);
        }
    }

    /// Adds the result of an attempt to listen at an address, which has ended. `AddrInUse` is a fault only if no
    /// server runs with the configuration.
    pub(crate) fn address<T>(&mut self, listened: Result<T, Error>) {
        let Err(error) = listened else { return };
        match &error {
            Error::UdpAddress { source, .. } | Error::MetricsAddress { source, .. }
                if source.kind() == io::ErrorKind::AddrInUse =>
            {
                self.taken.push(error);
            }
            _ => self.faults.push(error),
        }
    }

    /// Checks that a Unix socket can be made at `path`. `is_private`: its directory must be closed to others.
    pub(crate) fn socket(&mut self, option: &'static str, path: &Path, is_private: bool) {
        match socket_path::is_served(path, option) {
            Ok(true) => return self.served.push(path.to_path_buf()),
            Ok(false) => {}
            Err(error) => return self.result(Err::<(), _>(error)),
        }
        let directory = directory_of(path);
        match directory.metadata() {
            Ok(_) if is_private => self.result(socket_path::check_private(directory)),
            Ok(_) | Err(_) => {}
        }
        self.directory(option, directory);
    }

    /// Checks that files can be made in a directory, or that it can be made.
    pub(crate) fn directory(&mut self, option: &str, directory: &Path) {
        self.result(writable_directory(option, directory));
    }

    /// Checks that a file can be appended to, or made.
    pub(crate) fn appendable(&mut self, option: &str, path: &Path) {
        let result = match path.symlink_metadata() {
            Ok(found) if !found.is_file() => Err(unusable(option, path, "is not a regular file")),
            Ok(_) => may_write(option, path),
            Err(_) => writable_directory(option, directory_of(path)),
        };
        self.result(result);
    }

    /// Checks that a device is there and may be written to. It is not opened.
    pub(crate) fn device(&mut self, option: &str, path: &Path) {
        let result = match path.metadata() {
            Ok(found) if !found.file_type().is_char_device() => {
                Err(unusable(option, path, "is not a character device"))
            }
            Ok(_) => may_write(option, path),
            Err(error) => Err(unusable(option, path, &error.to_string())),
        };
        self.result(result);
    }

    /// Checks that a host has an address.
    pub(crate) fn host(&mut self, option: &'static str, host: &str, port: u16) {
        let found = (host, port).to_socket_addrs().map(drop);
        self.result(found.map_err(|source| Error::HostName { option, host: host.to_owned(), port, source }));
    }

    /// The faults, and what may be of interest besides.
    pub(crate) fn finish(self) -> (Result<(), Error>, Vec<String>) {
        let HostCheck { mut faults, mut notes, taken, served } = self;
        let Some(first) = served.first() else {
            taken.into_iter().for_each(|error| faults.push(error));
            return (faults.into_result(), notes);
        };
        let first = first.display();
        notes.push(format!(
            "{first}: a server listens there, so that it was not checked whether a socket can be made"
        ));
        let address = |error: &Error| match error {
            Error::UdpAddress { address, option, .. } => format!("{option} {address}"),
            Error::MetricsAddress { address, .. } => format!("--metrics-addr {address}"),
            other => other.to_string(),
        };
        notes.extend(taken.iter().map(|error| {
            format!("{}: is in use, supposedly by the server that listens on {first}", address(error))
        }));
        (faults.into_result(), notes)
    }
}

fn writable_directory(option: &str, directory: &Path) -> Result<(), Error> {
    let above = directory.ancestors();
    let above = above.map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    for there in above {
        let found = match there.metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unusable(option, there, &error.to_string())),
        };
        if !found.is_dir() {
            return Err(unusable(option, there, "is not a directory"));
        }
        return eaccess(there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
            let what = if there == directory { "" } else { ", where a directory is to be made" };
            unusable(option, there, &format!("cannot be written to{what}: {}", io::Error::from(errno)))
        });
    }
    Err(unusable(option, directory, "there is no directory above it"))
}

fn may_write(option: &str, path: &Path) -> Result<(), Error> {
    eaccess(path, AccessFlags::W_OK)
        .map_err(|errno| unusable(option, path, &format!("cannot be written to: {}", io::Error::from(errno))))
}

fn unusable(option: &str, path: &Path, fault: &str) -> Error {
    Error::configuration_file(path, format!("{fault}; see {option}"))
}
