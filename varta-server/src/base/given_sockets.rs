//! Sockets that others have bound for this server: the service manager, as in sd_listen_fds(3), or the server
//! that this one takes over from.
//!
//! A given socket is used where an option names its address. Its file is removed at the end only if this server
//! may do that: a service manager keeps the sockets that it gives.
#![allow(unsafe_code, reason = "the environment names descriptors by their numbers")]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::fstat;
use socket2::{Socket, Type};

use crate::base::SocketFiles;
use crate::base::error::Error;
use crate::base::socket_store::SocketStore;

/// The number of the first descriptor that a service manager gives.
const FIRST: RawFd = 3;
/// The most descriptors that are taken.
const MAX_GIVEN: usize = 4_096;
/// The names (`FileDescriptorName=`) that say for which option a socket is meant.
const NAMES_OF_OPTIONS: [&str; 5] = ["socket", "udp", "secure-udp", "metrics-addr", "control-socket"];

/// The descriptors of the environment have an owner already.
static ARE_TAKEN: AtomicBool = AtomicBool::new(false);

/// Sockets that were bound before this server was started, and the files of all Unix sockets that it has bound.
/// Clones share them: each is taken once.
#[derive(Clone, Debug, Default)]
pub struct GivenSockets {
    list: Arc<Mutex<Vec<GivenSocket>>>,
    files: SocketFiles,
    store: SocketStore,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct GivenSocket {
    socket: Socket,
    /// Whether its file is removed when it is not used any more.
    removes_file: bool,
    /// The datagrams that its queue holds, where that is known.
    queue: Option<usize>,
    /// How errors name it.
    name: Name,
}

#[derive(Clone, Debug)]
enum Name {
    /// By the service manager, with this number and name.
    OfManager(RawFd, String),
    /// By the server before this one, for this option.
    OfPredecessor(String),
    /// By the service manager, which has kept it for a server before this one.
    Stored,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::OfManager(number, name) => {
                write!(f, "descriptor {number} ({}) of the service manager", name.escape_debug())
            }
            Name::OfPredecessor(_) => f.write_str("a socket of the server before this one"),
            Name::Stored => f.write_str("a socket that the service manager has kept"),
        }
    }
}

impl GivenSockets {
    /// Takes the sockets that a service manager has given this process by `LISTEN_FDS`. Each is closed on `exec`
    /// and does not block from then on. None where the variables are not set, or mean another process.
    ///
    /// To be called before the program opens any file. Only the first call takes them.
    ///
    /// # Errors
    ///
    /// A variable makes no sense, or names what is no open socket.
    pub fn from_environment() -> Result<Self, Error> {
        if ARE_TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(GivenSockets::default());
        }
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let Some(names) = descriptors(variable, std::process::id(), own_pidfd_inode)? else {
            return Ok(GivenSockets::default());
        };
        let (mut given, store) = (Vec::new(), SocketStore::default());
        for (number, name) in names {
            let is_stored = SocketStore::is_name(&name);
            let who = Name::OfManager(number, name);
            let failed = |error: io::Error| refused(&who, &error.to_string());
            // SAFETY: the number is only looked at; one that is not open gives an error.
            let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
            if flags < 0 {
                return Err(failed(io::Error::last_os_error()));
            }
            // SAFETY: it is open, the program has opened nothing yet, and this function takes it only once.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            if is_stored {
                // What it is, is looked at when it is asked for: it is none of which the service depends.
                set_cloexec(&descriptor).map_err(failed)?;
                store.add_returned(descriptor, who.given().to_owned());
            } else {
                given.push(GivenSocket::new(descriptor, false, who.clone()).map_err(failed)?);
            }
        }
        Ok(GivenSockets { list: Arc::new(Mutex::new(given)), files: SocketFiles::default(), store })
    }

    /// Adds a socket of the server before this one that is for this option, without dashes. `removes_file` says
    /// whether its file is removed in the end, and `queue` how many datagrams its queue holds.
    ///
    /// # Errors
    ///
    /// It is no socket.
    pub(crate) fn add_inherited(
        &self,
        socket: OwnedFd,
        option: String,
        removes_file: bool,
        queue: Option<usize>,
    ) -> io::Result<()> {
        let given = GivenSocket::new(socket, removes_file, Name::OfPredecessor(option))?;
        self.lock().push(GivenSocket { queue, ..given });
        Ok(())
    }

    /// Closes what no option has taken of the sockets of the server before this one.
    pub(crate) fn close_inherited(&self) {
        self.lock().retain(|given| matches!(given.name, Name::OfManager(..)));
    }

    /// The files of the Unix sockets of this server.
    pub(crate) const fn files(&self) -> &SocketFiles {
        &self.files
    }

    /// The sockets that the service manager keeps while the server is restarted.
    pub(crate) const fn store(&self) -> &SocketStore {
        &self.store
    }

    /// Takes the datagram socket that the service manager has kept for this path.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn take_stored_unix(&self, path: &Path) -> Result<Option<GivenSocket>, Error> {
        self.store.take_unix(path).map(GivenSocket::of_store).transpose()
    }

    /// Takes the datagram socket that the service manager has kept with this abstract name.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn take_stored_abstract(&self, name: &str) -> Result<Option<GivenSocket>, Error> {
        self.store.take_abstract(name).map(GivenSocket::of_store).transpose()
    }

    /// Takes the Unix socket at this path, which `option` names.
    ///
    /// # Errors
    ///
    /// It is of another kind, or does not listen though it must.
    pub(crate) fn take_unix(
        &self,
        path: &Path,
        kind: Type,
        option: &'static str,
    ) -> Result<Option<GivenSocket>, Error> {
        let mut list = self.lock();
        let place = list.iter().position(|given| given.path().is_some_and(|at| is_same_place(&at, path)));
        let Some(given) = place.map(|place| list.remove(place)) else { return Ok(None) };
        given.check(kind, option).map(Some)
    }

    /// Takes the datagram socket with this abstract name, which `option` names.
    ///
    /// # Errors
    ///
    /// It is of another kind.
    pub(crate) fn take_abstract(
        &self,
        name: &str,
        option: &'static str,
    ) -> Result<Option<GivenSocket>, Error> {
        let mut list = self.lock();
        let has_name = |given: &GivenSocket| {
            given.socket.local_addr().is_ok_and(|at| at.as_abstract_namespace() == Some(name.as_bytes()))
        };
        let place = list.iter().position(has_name);
        let Some(given) = place.map(|place| list.remove(place)) else { return Ok(None) };
        given.check(Type::DGRAM, option).map(Some)
    }

    /// Takes the socket of this kind at this internet address, which `option` names: port 0 stands for any.
    ///
    /// # Errors
    ///
    /// It does not listen though it must.
    pub(crate) fn take_inet(
        &self,
        address: SocketAddr,
        kind: Type,
        option: &'static str,
    ) -> Result<Option<GivenSocket>, Error> {
        let mut list = self.lock();
        let meant_for = option.trim_start_matches('-');
        let is_at = |given: &GivenSocket| {
            given.socket.r#type().is_ok_and(|its| its == kind)
                && given.inet().is_some_and(|at| {
                    at.ip().to_canonical() == address.ip().to_canonical()
                        && (address.port() == 0 || at.port() == address.port())
                })
        };
        let named = |given: &GivenSocket| given.name() == meant_for;
        let is_free = |given: &GivenSocket| !NAMES_OF_OPTIONS.contains(&given.name());
        let place = list
            .iter()
            .position(|given| is_at(given) && named(given))
            .or_else(|| list.iter().position(|given| is_at(given) && is_free(given)));
        let Some(given) = place.map(|place| list.remove(place)) else { return Ok(None) };
        given.check(kind, option).map(Some)
    }

    /// Refuses what no option has taken: datagrams would wait there for ever.
    ///
    /// # Errors
    ///
    /// There is such a socket.
    pub(crate) fn check_all_taken(&self) -> Result<(), Error> {
        let list = self.lock();
        let is_of_manager = |given: &&GivenSocket| matches!(given.name, Name::OfManager(..));
        let Some(given) = list.iter().find(is_of_manager) else { return Ok(()) };
        Err(refused(
            &given.name,
            &format!(
                "no option names {}; give the option, or take the socket out of the socket unit",
                given.address()
            ),
        ))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<GivenSocket>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GivenSocket {
    fn new(descriptor: OwnedFd, removes_file: bool, name: Name) -> io::Result<Self> {
        set_cloexec(&descriptor)?;
        let socket = Socket::from(descriptor);
        // Fails on what is no socket.
        socket.r#type()?;
        socket.set_nonblocking(true)?;
        Ok(GivenSocket { socket, removes_file, queue: None, name })
    }

    fn of_store((socket, queue): (Socket, Option<usize>)) -> Result<Self, Error> {
        let failed = |error: io::Error| refused(&Name::Stored, &error.to_string());
        let given = Self::new(socket.into(), true, Name::Stored).map_err(failed)?;
        Ok(GivenSocket { queue, ..given })
    }

    /// Whether its file is removed when it is not used any more.
    pub(crate) const fn removes_file(&self) -> bool {
        self.removes_file
    }

    /// The datagrams that its queue holds, where the server before this one has said that.
    pub(crate) const fn queue(&self) -> Option<usize> {
        self.queue
    }

    /// The socket itself.
    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    fn check(self, kind: Type, option: &'static str) -> Result<Self, Error> {
        let its = self.socket.r#type().map_err(|error| refused(&self.name, &error.to_string()))?;
        let fault = |fault: &str| Err(refused(&self.name, &format!("{option} {}: {fault}", self.address())));
        if its != kind {
            return fault(&format!("is a {} socket, and a {} socket is needed", shown(its), shown(kind)));
        }
        if kind != Type::DGRAM && !self.socket.is_listener().unwrap_or(false) {
            return fault("does not listen for connections");
        }
        Ok(self)
    }

    fn name(&self) -> &str {
        self.name.given()
    }

    fn path(&self) -> Option<PathBuf> {
        self.socket.local_addr().ok()?.as_pathname().map(Path::to_path_buf)
    }

    fn inet(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Its kind and address, for people.
    fn address(&self) -> String {
        let kind = self.socket.r#type().map_or("", shown);
        match (self.path(), self.inet()) {
            (Some(path), _) => format!("{} ({kind})", path.display()),
            (None, Some(address)) => format!("{address} ({kind})"),
            (None, None) => format!("an address without path and port ({kind})"),
        }
    }
}

impl Name {
    /// The name that who gave it has given it.
    fn given(&self) -> &str {
        match self {
            Name::OfManager(_, name) | Name::OfPredecessor(name) => name,
            Name::Stored => "",
        }
    }
}

fn set_cloexec(descriptor: &OwnedFd) -> io::Result<()> {
    let flags = FdFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFD)?);
    fcntl(descriptor, FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC))?;
    Ok(())
}

fn shown(kind: Type) -> &'static str {
    match kind {
        Type::DGRAM => "datagram",
        Type::STREAM => "stream",
        Type::SEQPACKET => "sequential-packet",
        _ => "raw",
    }
}

fn refused(who: &Name, fault: &str) -> Error {
    Error::GivenSocket { who: who.to_string(), fault: fault.to_owned() }
}

/// Whether two paths lead to one file, whatever symlinks are on the way to its directory.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let directory = |path: &Path| path.parent().and_then(|directory| directory.canonicalize().ok());
    one == other
        || one.file_name() == other.file_name()
            && directory(one).is_some_and(|at| directory(other).is_some_and(|other| at == other))
}

/// The numbers and names of the descriptors that the variables give the process with this pid.
///
/// # Errors
///
/// A variable makes no sense.
fn descriptors(
    variable: impl Fn(&str) -> Option<OsString>,
    pid: u32,
    pidfd_inode: impl FnOnce() -> Option<u64>,
) -> Result<Option<Vec<(RawFd, String)>>, Error> {
    let wrong = |name: &str, value: &OsString| Error::GivenSocket {
        who: format!("{name}={}", value.display()),
        fault: "makes no sense".to_owned(),
    };
    let number = |name: &str| {
        let value = variable(name);
        value
            .map(|value| value.to_str().and_then(|text| text.parse::<u64>().ok()).ok_or(wrong(name, &value)))
            .transpose()
    };
    let (Some(count), Some(of)) = (number("LISTEN_FDS")?, number("LISTEN_PID")?) else { return Ok(None) };
    let is_of_other_process =
        number("LISTEN_PIDFDID")?.is_some_and(|inode| pidfd_inode().is_some_and(|own| own != inode));
    if of != u64::from(pid) || is_of_other_process {
        return Ok(None);
    }
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_GIVEN);
    let count = count.ok_or_else(|| wrong("LISTEN_FDS", &variable("LISTEN_FDS").unwrap_or_default()))?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.to_str().unwrap_or_default().split(':');
    let named = (FIRST..).take(count).map(|number| {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        (number, name.to_owned())
    });
    Ok(Some(named.collect()))
}

/// The inode number of a pidfd of this process, by which newer kernels tell it from all others; `None` where they
/// do not.
fn own_pidfd_inode() -> Option<u64> {
    // SAFETY: the call takes numbers only, and its result is looked at.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(std::process::id()), 0) };
    let number = RawFd::try_from(result).ok().filter(|number| *number >= 0)?;
    // SAFETY: the kernel has just made it for this process.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number) };
    Some(fstat(pidfd.as_fd()).ok()?.st_ino)
}

#[cfg(test)]
mod tests;
