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
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    fn candidate(path: &Path, owner: Option<u32>) -> SocketCandidate {
        SocketCandidate { address: socket_address(path).unwrap(), owner }
    }

    fn paths(transport: &UdsTransport) -> Vec<&Path> {
        transport.candidates.iter().map(SocketCandidate::path).collect()
    }

    #[test]
    fn varta_socket_comes_before_every_other_path() {
        let lookup = |name: &str| (name == "VARTA_SOCKET").then(|| "/srv/varta.sock".into());
        assert_eq!(paths(&UdsTransport::at_default(lookup).unwrap()), [Path::new("/srv/varta.sock")]);
    }

    #[test]
    fn an_empty_varta_socket_counts_as_none() {
        let lookup = |name: &str| (name == "VARTA_SOCKET").then(OsString::new);
        let transport = UdsTransport::at_default(lookup).unwrap();
        assert_eq!(paths(&transport), address::candidate_socket_paths_from(sys::effective_uid(), nothing));
    }

    #[test]
    fn the_first_candidate_that_answers_is_the_only_one_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let [gone, stale, live, unasked] =
            ["gone", "stale", "live", "unasked"].map(|name| dir.path().join(name));
        drop(UnixDatagram::bind(&stale).unwrap());
        let server = UnixDatagram::bind(&live).unwrap();
        let _other = UnixDatagram::bind(&unasked).unwrap();
        let candidates = [&gone, &stale, &live, &unasked].map(|path| candidate(path, None));

        let mut transport = UdsTransport { socket: None, candidates: candidates.into() };
        assert_eq!(transport.send(&[7; 32]).unwrap(), 32);
        assert_eq!(paths(&transport), [live]);
        drop(server);
        assert_eq!(transport.reconnect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_reconnect_that_fails_leaves_the_connection_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("varta.sock"), dir.path().join("elsewhere"));
        let server = UnixDatagram::bind(&path).unwrap();
        let mut transport = UdsTransport::connect(&path).unwrap();
        fs::rename(&path, &elsewhere).unwrap();

        assert_eq!(transport.reconnect().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(transport.send(&[7; 32]).unwrap(), 32);
        assert_eq!(server.recv(&mut [0; 64]).unwrap(), 32);
    }

    #[test]
    fn a_directory_below_tmp_has_to_be_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let (own, link) = (dir.path().join("own"), dir.path().join("link"));
        fs::create_dir(&own).unwrap();
        symlink(&own, &link).unwrap();
        let _server = UnixDatagram::bind(own.join("varta.sock")).unwrap();
        let uid = sys::effective_uid();
        let connect = |dir: &Path, owner| candidate(&dir.join("varta.sock"), Some(owner)).connect();

        assert!(connect(&own, uid).is_ok());
        assert_eq!(connect(&own, uid + 1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(connect(&link, uid).unwrap_err().kind(), io::ErrorKind::PermissionDenied);

        let owners = |transport: &UdsTransport| {
            transport.candidates.iter().map(|candidate| candidate.owner).collect::<Vec<_>>()
        };
        let lookup = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| "/tmp/varta".into());
        assert_eq!(owners(&UdsTransport::at_default(lookup).unwrap())[..2], [Some(uid), None]);
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_at_once() {
        for path in ["", "/with\0zero", &"x".repeat(200)] {
            let error = UdsTransport::at(path.as_ref()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}: {error}");
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn a_connect_error_names_the_path_and_says_what_to_do() {
        let message = |paths: &[&str], hint, source: io::Error| {
            let paths = paths.join(" or ");
            ConnectError { paths, hint, source }.into_io().to_string()
        };
        let table = [
            (
                message(&["/run/a"], ConnectHint::Path, io::ErrorKind::NotFound.into()),
                "cannot connect to /run/a: entity not found; \
                 start varta-server, or connect to the path at which it listens",
            ),
            (
                message(&["/run/a", "/tmp/b"], ConnectHint::Environment, io::ErrorKind::NotFound.into()),
                "cannot connect to /run/a or /tmp/b: entity not found; \
                 start varta-server, or name its socket in VARTA_SOCKET",
            ),
            (
                message(&["/run/a"], ConnectHint::Path, io::ErrorKind::ConnectionRefused.into()),
                "cannot connect to /run/a: connection refused; the server that made this socket is gone: \
                 start varta-server, or connect to the path at which it listens",
            ),
            (
                message(&["/tmp/b"], ConnectHint::Environment, io::ErrorKind::PermissionDenied.into()),
                "cannot connect to /tmp/b: permission denied; its directory belongs to somebody else: \
                 remove it, or name its socket in VARTA_SOCKET",
            ),
            (
                message(&["/run/a"], ConnectHint::Path, io::Error::from_raw_os_error(libc::EACCES)),
                "cannot connect to /run/a: Permission denied (os error 13); \
                 the server's --socket-mode and --socket-group say who may connect",
            ),
        ];
        for (message, expected) in table {
            assert_eq!(message, expected);
        }
    }
}
