//! The file of a Unix socket: created without a window in which another user could connect, refused while
//! another server uses it, and removed at the end only if it is still the same file.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::error::Error;
use crate::base::files::directory::{directory_of, make_directory, open_directory};
use crate::base::given_sockets::GivenSocket;
use crate::base::socket_files::{BoundSocket, SocketFiles};
use crate::base::socket_path::{check_length, check_private, remove_stale};
use crate::base::socket_store::{KeptSocket, SocketStore};

/// The number of attempts to lock the directory, and the pause between them: two seconds in all.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The path of a socket, and its permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The file's path. The directory is created with mode 0700 if it is missing.
    pub path: PathBuf,
    /// Whether the path is the default: then its directory must be private to this user.
    pub is_default: bool,
    /// The file's permission bits.
    pub mode: u32,
    /// The group of the file; `None` for that of the process.
    pub group: Option<u32>,
}

/// The file of a bound socket, removed on drop unless others keep it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Also among the files of the server, as long as this lives.
    bound: Arc<BoundSocket>,
    files: SocketFiles,
    /// The socket as one that may go on without the server.
    kept: Option<Arc<KeptSocket>>,
}

/// The place of a socket's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPlace {
    path: PathBuf,
    /// Device and inode of the created file: another server may since have put its own in the same place.
    identity: (u64, u64),
}

/// Who may connect to a socket, by its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileAccess {
    pub(crate) mode: u32,
    pub(crate) gid: u32,
}

impl SocketPlace {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still there, and no other.
    pub(crate) fn is_held(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| identity_of(&found) == self.identity)
    }

    /// Gives the file another mode and group, `None` for that of the process. Returns what it had.
    ///
    /// # Errors
    ///
    /// The kernel refuses. Nothing has changed.
    pub(crate) fn give_access(&self, mode: u32, group: Option<u32>) -> Result<FileAccess, Error> {
        let failed = |source| {
            let action = "set the socket's mode and group";
            Error::Socket { path: self.path.clone(), action, source }
        };
        let found = fs::symlink_metadata(&self.path).map_err(failed)?;
        let gid = group.unwrap_or_else(|| nix::unistd::getegid().as_raw());
        self.open_to(Some(gid).filter(|gid| *gid != found.gid()), mode).map_err(failed)?;
        Ok(FileAccess { mode: found.mode() & 0o777, gid: found.gid() })
    }

    /// Sets the group and mode of the created file, never of another one that has its name by now.
    fn open_to(&self, group: Option<u32>, mode: u32) -> io::Result<()> {
        let handle =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(&self.path)?;
        if identity_of(&handle.metadata()?) != self.identity {
            return Err(io::Error::other("another file has taken its place"));
        }
        // An O_PATH descriptor supports neither call itself; its link in /proc does.
        let file = format!("/proc/self/fd/{}", handle.as_raw_fd());
        if let Some(group) = group {
            chown(&file, None, Some(group))?;
        }
        fs::set_permissions(&file, Permissions::from_mode(mode))
    }
}

impl SocketFile {
    /// Creates a non-blocking Unix datagram socket that receives credentials, and its file. After an error
    /// nothing is left but a directory that may have been created.
    ///
    /// # Errors
    ///
    /// A live server or another file has the name, or the kernel refuses.
    pub(crate) fn bind(options: &SocketOptions, files: &SocketFiles) -> Result<(UnixDatagram, Self), Error> {
        let (socket, file) = Self::make(options, Type::DGRAM, "--socket", files)?;
        warn_if_shut_off(directory_of(&options.path), options.mode);
        Ok((OwnedFd::from(socket).into(), file))
    }

    /// Creates a non-blocking, listening Unix stream socket, and its file, which only its owner can open.
    /// `backlog` is the number of connections that may wait; errors name `option`, which sets the path.
    ///
    /// # Errors
    ///
    /// As for [`bind`](SocketFile::bind).
    pub(crate) fn listen(
        path: &Path,
        backlog: i32,
        option: &'static str,
        files: &SocketFiles,
    ) -> Result<(UnixListener, Self), Error> {
        let path = path.to_path_buf();
        let options = SocketOptions { path, is_default: false, mode: 0o600, group: None };
        let (socket, file) = Self::make(&options, Type::STREAM, option, files)?;
        let failed = |source| Error::Socket { path: options.path.clone(), action: "listen on it", source };
        socket.listen(backlog).map_err(failed)?;
        Ok((OwnedFd::from(socket).into(), file))
    }

    /// Creates a non-blocking, listening Unix socket for packets, which receives credentials, and its file.
    /// `backlog` is the number of connections that may wait.
    ///
    /// # Errors
    ///
    /// As for [`bind`](SocketFile::bind).
    pub(crate) fn listen_for_packets(
        options: &SocketOptions,
        backlog: i32,
        files: &SocketFiles,
    ) -> Result<(UnixListener, Self), Error> {
        let (socket, file) = Self::make(options, Type::SEQPACKET, "--socket", files)?;
        let failed = |source| Error::Socket { path: options.path.clone(), action: "listen on it", source };
        socket.listen(backlog).map_err(failed)?;
        Ok((OwnedFd::from(socket).into(), file))
    }

    /// Takes a Unix socket that was bound to this path before, and receives credentials from then on if it is for
    /// datagrams or packets. Without a file there, or with another, the socket counts as removed.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn adopt(
        given: GivenSocket,
        path: &Path,
        files: &SocketFiles,
    ) -> Result<(Socket, Self), Error> {
        let failed = |action| move |source| Error::Socket { path: path.to_path_buf(), action, source };
        let is_removed = given.removes_file();
        let socket = given.into_socket();
        if socket.r#type().map_err(failed("look at the given socket"))? != Type::STREAM {
            socket.set_passcred(true).map_err(failed("ask for senders' credentials (SO_PASSCRED)"))?;
        }
        let identity = fs::symlink_metadata(path).map_or((0, 0), |found| identity_of(&found));
        let place = SocketPlace { path: path.to_path_buf(), identity };
        let file = Self::listed(&socket, place, is_removed, files);
        Ok((socket, file))
    }

    fn listed(socket: &Socket, place: SocketPlace, is_removed: bool, files: &SocketFiles) -> Self {
        SocketFile { bound: files.add(socket, place, is_removed), files: files.clone(), kept: None }
    }

    fn make(
        options: &SocketOptions,
        kind: Type,
        option: &'static str,
        files: &SocketFiles,
    ) -> Result<(Socket, Self), Error> {
        let SocketOptions { path, is_default, mode, group } = options;
        check_length(path, option)?;
        let directory = directory_of(path);
        prepare_directory(directory, *is_default)?;
        // Two servers that start at once must not both find the file stale: the second must find the first
        // one alive.
        let _lock = lock_directory(directory)?;
        remove_stale(path, option)?;

        let failed = |action| move |source| Error::Socket { path: path.clone(), action, source };
        let socket = Socket::new(Domain::UNIX, kind.nonblocking(), None).map_err(failed("make a socket"))?;
        if kind != Type::STREAM {
            // Before bind: earlier messages would arrive without credentials.
            socket.set_passcred(true).map_err(failed("ask for senders' credentials (SO_PASSCRED)"))?;
        }
        // The file inherits the socket's mode when it is created, so that it is never open to others.
        set_mode(&socket, mode & 0o600).map_err(failed("set the socket's mode"))?;
        let address = SockAddr::unix(path).map_err(failed("use this as a socket path"))?;
        socket.bind(&address).map_err(failed("bind the socket"))?;
        let identity = fs::symlink_metadata(path).map_err(failed("look at the socket just made"))?;
        let place = SocketPlace { path: path.clone(), identity: identity_of(&identity) };
        let file = Self::listed(&socket, place, true, files);

        file.place().open_to(*group, *mode).map_err(failed("set the socket's mode and group"))?;
        Ok((socket, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.bound.place.path
    }

    pub(crate) fn place(&self) -> &SocketPlace {
        &self.bound.place
    }

    /// Notes how many datagrams the queue of the socket holds, for a server that takes it over.
    pub(crate) fn note_queue(&self, length: Option<usize>) {
        if let Some(length) = length {
            self.bound.queue.get_or_init(|| length);
        }
    }

    /// Has the service manager keep the socket while the server is restarted, and the file with it.
    pub(crate) fn keep_in(&mut self, store: &SocketStore, socket: BorrowedFd<'_>, queue: Option<usize>) {
        self.kept = store.keep(socket, Some(self.bound.place.identity), queue);
    }

    /// Whether it is removed at the end, as one that this server has made.
    pub(crate) fn is_removed(&self) -> bool {
        self.bound.is_removed
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.bound.is_removed
            && !self.files.are_kept()
            && !self.kept.as_ref().is_some_and(|kept| kept.outlives_server())
            && self.bound.place.is_held()
            && let Err(error) = fs::remove_file(self.path())
        {
            tracing::warn!(
                target: "varta::socket",
                "{}: cannot remove the socket: {error}",
                self.path().display()
            );
        }
    }
}

fn identity_of(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn set_mode(socket: &Socket, mode: u32) -> io::Result<()> {
    let descriptor: OwnedFd = socket.as_fd().try_clone_to_owned()?;
    File::from(descriptor).set_permissions(Permissions::from_mode(mode))
}

fn prepare_directory(directory: &Path, must_be_ours: bool) -> Result<(), Error> {
    let failed = |action| move |source| Error::Socket { path: directory.to_path_buf(), action, source };
    make_directory(directory, 0o700).map_err(failed("make the socket's directory"))?;
    if must_be_ours { check_private(directory) } else { Ok(()) }
}

/// Warns of a mode that lets others connect while the directory does not let them enter.
fn warn_if_shut_off(directory: &Path, mode: u32) {
    let enters = |shift: u32| fs::metadata(directory).is_ok_and(|found| found.mode() >> shift & 1 != 0);
    for (who, shift) in [("group", 3), ("others", 0)] {
        if mode >> shift & 0o6 != 0 && !enters(shift) {
            tracing::warn!(
                target: "varta::socket",
                "--socket-mode {mode:04o} lets {who} connect, but they may not enter {}; chmod it",
                directory.display()
            );
        }
    }
}

/// Locks the directory while another server may be starting. Gives up after a while: any process that can
/// read a directory can lock it.
fn lock_directory(directory: &Path) -> Result<File, Error> {
    let failed = |action| move |source| Error::Socket { path: directory.to_path_buf(), action, source };
    let file = open_directory(directory).map_err(failed("open the socket's directory"))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed("lock the socket's directory")(error)),
        }
    }
    tracing::warn!(
        target: "varta::socket",
        "{}: another program holds a lock on this directory; going on without",
        directory.display()
    );
    Ok(file)
}

#[cfg(test)]
mod tests;
