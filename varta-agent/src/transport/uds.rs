//! Beats over a Unix datagram socket.
//!
//! For processes on the server's own host: the kernel identifies the sender of each beat, and reports a full
//! queue or a missing server at once.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
#[cfg(all(feature = "shm", target_os = "linux"))]
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use varta_proto::address;
use varta_proto::control::EncodedControl;

use crate::sys;
use crate::transport::BeatTransport;

/// The directory in which every user can create a directory: below it the directory of a server's socket must
/// belong to this user.
const SHARED_DIR: &str = "/tmp";

/// Sends beats to a server on this host. The default transport of a [`Varta`](crate::Varta).
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// use varta_agent::{BeatTransport, Frame, Status, UdsTransport};
///
/// let mut transport = UdsTransport::connect(&path)?;
/// let frame = Frame::new(Status::Ok, std::process::id(), 0, 1, 0);
/// assert_eq!(transport.send(&frame.to_bytes())?, 32);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdsTransport {
    /// While it is `None`, every send first looks for the server.
    socket: Option<UnixDatagram>,
    /// The paths at which the server may be. After one of them has answered it is the only one, so that an
    /// agent does not switch to another server while its own restarts.
    candidates: Vec<SocketCandidate>,
}

impl UdsTransport {
    /// Connects to the server that listens at `path`.
    ///
    /// # Errors
    ///
    /// No server listens there, this process has no permission to connect, the path is invalid for a socket,
    /// or there is no descriptor left. The message names the path and says what to do.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::at(path.as_ref())?.connect_now(ConnectHint::Path)
    }

    /// Creates a transport that connects to the server at `path` with the first send. It fails only if the
    /// path is invalid for a socket.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let candidate = SocketCandidate { address: socket_address(path)?, owner: None };
        Ok(Self { socket: None, candidates: vec![candidate] })
    }

    /// Creates a transport that connects to the server at `VARTA_SOCKET`, or at one of the default paths,
    /// with the first send.
    pub(crate) fn at_default(lookup: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        if let Some(path) = path_from_env(&lookup) {
            return Self::at(&path);
        }
        let uid = sys::effective_uid();
        let paths = address::candidate_socket_paths_from(uid, lookup);
        // A path that is invalid for a socket has none.
        let candidates = paths.iter().filter_map(|path| {
            let owner = path.starts_with(SHARED_DIR).then_some(uid);
            Some(SocketCandidate { address: socket_address(path).ok()?, owner })
        });
        Ok(Self { socket: None, candidates: candidates.collect() })
    }

    /// Creates a transport without any path.
    pub(crate) const fn disconnected() -> Self {
        Self { socket: None, candidates: Vec::new() }
    }

    /// Connects to the server, with an error for the caller if there is none.
    pub(crate) fn connect_now(mut self, hint: ConnectHint) -> io::Result<Self> {
        match self.find_server() {
            Ok(()) => Ok(self),
            Err(ConnectFailure { candidate, source }) => {
                let named =
                    candidate.map_or(self.candidates.as_slice(), |index| &self.candidates[index..=index]);
                let mut paths = String::new();
                for candidate in named {
                    paths.push_str(if paths.is_empty() { "" } else { " or " });
                    paths.push_str(&candidate.path().to_string_lossy());
                }
                Err(ConnectError { paths, hint, source }.into_io())
            }
        }
    }

    /// Sends a datagram of any length.
    #[inline]
    pub(crate) fn send_datagram(&mut self, datagram: &[u8]) -> io::Result<usize> {
        if self.socket.is_none() {
            self.reconnect()?;
        }
        match &self.socket {
            Some(socket) => sys::send_now(socket, datagram),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Sends a datagram with a copy of a descriptor, on the current connection.
    #[cfg(all(feature = "shm", target_os = "linux"))]
    pub(crate) fn send_with_descriptor(&self, datagram: &[u8], passed: &impl AsFd) -> io::Result<usize> {
        match &self.socket {
            Some(socket) => sys::send_with_descriptor(socket, datagram, passed),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Connects to the first candidate that answers. Until then nothing changes. It does not allocate,
    /// because a beat may call it.
    fn find_server(&mut self) -> Result<(), ConnectFailure> {
        let mut failure = ConnectFailure { candidate: None, source: io::ErrorKind::NotFound.into() };
        for (index, candidate) in self.candidates.iter().enumerate() {
            match candidate.connect() {
                Ok(socket) => {
                    self.socket = Some(socket);
                    self.candidates.swap(0, index);
                    self.candidates.truncate(1);
                    return Ok(());
                }
                // A fault of a socket is more informative than a path without a socket.
                Err(source) if failure.candidate.is_none() => {
                    let candidate = (source.kind() != io::ErrorKind::NotFound).then_some(index);
                    failure = ConnectFailure { candidate, source };
                }
                Err(_) => {}
            }
        }
        Err(failure)
    }
}

/// Returns the path in `VARTA_SOCKET`. An empty value counts as unset.
pub(crate) fn path_from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    lookup(address::SOCKET_ENV).filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl BeatTransport for UdsTransport {
    #[inline]
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
        self.send_datagram(frame)
    }

    #[cold]
    fn reconnect(&mut self) -> io::Result<()> {
        self.find_server().map_err(|failure| failure.source)
    }

    #[cold]
    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        self.send_datagram(&datagram)
    }

    fn server_path(&self) -> Option<PathBuf> {
        // Which of several it is, is known by its answer; where there is none, one that this process may not open
        // is most likely the one.
        let mut closed = None;
        for candidate in &self.candidates {
            match candidate.connect() {
                Ok(_) => return Some(candidate.path().to_path_buf()),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    closed = closed.or(Some(candidate));
                }
                Err(_) => {}
            }
        }
        closed.map(|candidate| candidate.path().to_path_buf())
    }
}

impl fmt::Debug for UdsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<&Path> = self.candidates.iter().map(SocketCandidate::path).collect();
        f.debug_struct("UdsTransport")
            .field("connected", &self.socket.is_some())
            .field("paths", &paths)
            .finish()
    }
}

/// Opens a socket and connects it. It neither blocks nor allocates.
pub(crate) fn connect_socket(address: &SocketAddr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(address)?;
    Ok(socket)
}

/// Converts a path to a socket address.
pub(crate) fn socket_address(path: &Path) -> io::Result<SocketAddr> {
    let address = if path.as_os_str().is_empty() {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is empty"))
    } else {
        SocketAddr::from_pathname(path)
    };
    address.map_err(|source| connect_error(path, source))
}

/// Creates the error of a connect to `path`, with the path in the message.
pub(crate) fn connect_error(path: &Path, source: io::Error) -> io::Error {
    ConnectError { paths: path.to_string_lossy().into_owned(), hint: ConnectHint::Path, source }.into_io()
}

/// A path at which a server may listen.
struct SocketCandidate {
    /// Ready for the kernel, so that a reconnect needs no preparation and an invalid path is detected at
    /// once.
    address: SocketAddr,
    /// The required owner of the socket's directory.
    owner: Option<u32>,
}

impl SocketCandidate {
    fn path(&self) -> &Path {
        self.address.as_pathname().unwrap_or(Path::new(""))
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        if let (Some(owner), Some(directory)) = (self.owner, self.path().parent()) {
            // Without following a link: another user who can create a link there would choose the directory.
            let directory = fs::symlink_metadata(directory)?;
            if !directory.is_dir() || directory.uid() != owner {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        connect_socket(&self.address)
    }
}

/// No candidate answered.
struct ConnectFailure {
    /// The index of the candidate with this error, or `None` if no candidate has a socket.
    candidate: Option<usize>,
    source: io::Error,
}

/// What a program without a server can do.
#[derive(Clone, Copy)]
pub(crate) enum ConnectHint {
    /// The program chose the path.
    Path,
    /// The path is the default.
    Environment,
}

/// The error of a connect, with its paths and a hint for its message.
struct ConnectError {
    paths: String,
    hint: ConnectHint,
    source: io::Error,
}

impl ConnectError {
    /// Converts it to an I/O error of the same kind.
    fn into_io(self) -> io::Error {
        io::Error::new(self.source.kind(), self)
    }
}

/// The same text as `Display`, because `unwrap` shows only `Debug`.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elsewhere = match self.hint {
            ConnectHint::Path => "or connect to the path at which it listens",
            ConnectHint::Environment => "or name its socket in VARTA_SOCKET",
        };
        write!(f, "cannot connect to {}: {}", self.paths, self.source)?;
        match (self.source.kind(), self.source.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => write!(f, "; start varta-server, {elsewhere}"),
            (io::ErrorKind::ConnectionRefused, _) => {
                write!(f, "; the server that made this socket is gone: start varta-server, {elsewhere}")
            }
            (io::ErrorKind::PermissionDenied, Some(_)) => {
                f.write_str("; the server's --socket-mode and --socket-group say who may connect")
            }
            (io::ErrorKind::PermissionDenied, None) => {
                write!(f, "; its directory belongs to somebody else: remove it, {elsewhere}")
            }
            (_, Some(libc::EPROTOTYPE)) => {
                write!(f, "; that is a socket of another program: start varta-server, {elsewhere}")
            }
            _ => Ok(()),
        }
    }
}

/// No source: its text is part of the message.
impl Error for ConnectError {}

#[cfg(test)]
mod tests;
