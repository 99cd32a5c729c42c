//! The errors with which the server does not start or ends, each with a remedy for its operator.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why the server did not start, or ended. Each message names what failed, on which file or address, and what
/// to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another server answers on the socket. Nothing was changed.
    #[error(
        "{}: another server is listening on this socket; stop it, or give this one another path with {option}",
        path.display()
    )]
    SocketInUse {
        /// The socket's path.
        path: PathBuf,
        /// The option that sets this socket's path.
        option: &'static str,
    },
    /// The socket's path exists and is no socket. It was left alone.
    #[error("{}: is there and is not a socket; remove it, or give another path with {option}", path.display())]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
        /// The option that sets this socket's path.
        option: &'static str,
    },
    /// The directory of the default socket belongs to another user, or others may write to it.
    #[error(
        "{}: the socket's directory must belong to this user and be closed to others (mode 0700); mend it, or give a \
         path with --socket",
        path.display()
    )]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The socket's path is longer than the kernel allows.
    #[error(
        "{}: the path of a Unix socket may have {most} bytes and this one has {length}; give a shorter one with \
         {option}",
        path.display()
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// The option that sets this socket's path.
        option: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The maximum in bytes.
        most: usize,
    },
    /// The group of `--socket-group` does not exist.
    #[error("--socket-group {name}: there is no such group on this host")]
    UnknownGroup {
        /// The name or number given.
        name: String,
    },
    /// A system call on a socket's file or directory failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Socket {
        /// The socket's path, or its directory.
        path: PathBuf,
        /// The failed operation.
        action: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A socket that the service manager, or the server before this one, has given cannot be used.
    #[error("{who}: {fault}")]
    GivenSocket {
        /// Who gave it, and which it is.
        who: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A system call on a listener's socket failed.
    #[error("{endpoint}: cannot {action}: {source}")]
    Listener {
        /// The endpoint of the listener.
        endpoint: String,
        /// The failed operation.
        action: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A UDP address could not be bound.
    #[error(
        "{option} {address}: cannot listen: {source}; is the address one of this host's, and is another program using \
         the port?"
    )]
    UdpAddress {
        /// The option that gave the address.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// The error of the kernel.
        source: io::Error,
    },
    /// Plaintext would be accepted from the network.
    #[error(
        "--udp {address}: is not a loopback address, and whoever can reach it could pretend to be any agent, or read \
         what they say; use --secure-udp, or say --allow-plaintext-remote if that network is trusted"
    )]
    PlaintextRemote {
        /// The address.
        address: SocketAddr,
    },
    /// An operation on the directory of `--state-dir` failed.
    #[error("{}: cannot {action}: {source}; see --state-dir", path.display())]
    StateDirectory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The failed operation.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// Others may write to the directory of `--state-dir`.
    #[error(
        "{}: the directory of --state-dir must belong to this server's user or root, and nobody else may be able to \
         write to it; chown it, and chmod go-w it",
        path.display()
    )]
    UnsafeStateDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another server uses the directory of `--state-dir`. Nothing was changed.
    #[error(
        "{}: another server ({}) keeps its state here; stop it, or give this one another directory with --state-dir",
        path.display(),
        holder.map_or_else(|| "its pid is not known".to_owned(), |pid| format!("pid {pid}"))
    )]
    StateInUse {
        /// The directory.
        path: PathBuf,
        /// The pid of the other server.
        holder: Option<u32>,
    },
    /// A file in the directory of `--state-dir` was written by a newer server. Nothing was touched.
    #[error(
        "{}: was written by a newer varta-server (version {version} of its {form}); start that one, or give this one \
         another directory with --state-dir",
        path.display()
    )]
    NewerState {
        /// The file.
        path: PathBuf,
        /// What has the version: the tables of a database, or the format of a file.
        form: &'static str,
        /// The version.
        version: u64,
    },
    /// The database in the directory of `--state-dir` cannot be used.
    #[error("{}: cannot be used as this server's database: {fault}; see --state-dir", path.display())]
    StateDatabase {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The name of a host in an address to listen on could not be resolved.
    #[error("{option} {host}:{port}: the address of the host {host} cannot be found: {source}")]
    HostName {
        /// The option that gave the address.
        option: &'static str,
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// The error of the resolver.
        source: io::Error,
    },
    /// The address for metrics could not be bound.
    #[error(
        "{address}: cannot listen for metrics: {source}; is another program using the port? Give another address with \
         --metrics-addr, port 0 to have one picked, or `none`"
    )]
    MetricsAddress {
        /// The address.
        address: SocketAddr,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The metrics would be readable from the network.
    #[error(
        "--metrics-addr {address}: is not a loopback address, so anyone who can reach it could read the metrics; give \
         a --metrics-token-file or --metrics-basic-auth-file as well"
    )]
    MetricsUnprotected {
        /// The address.
        address: SocketAddr,
    },
    /// A file, or a socket of this server, cannot be used or does not hold what it should.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, where, and what to do.
        fault: String,
        /// Whether it belongs to the configuration, as a secret or a certificate does.
        is_configuration: bool,
    },
    /// The audit log is not as this server left it, or cannot be written at present.
    #[error("{}: {fault}", path.display())]
    AuditLog {
        /// The file of the log.
        path: PathBuf,
        /// What is wrong with it, where, and what to do.
        fault: String,
    },
    /// The command line is invalid; or it asks for help or the version, which is no error.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// An entry of the configuration file is invalid.
    #[error("{}:{line}: {fault}", path.display())]
    ConfigLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key, what is wrong with it or its value, and what to do.
        fault: String,
    },
    /// Several entries of the configuration file are invalid. A line for each.
    #[error("{}", Lines { path, faults, more: *more })]
    ConfigLines {
        /// The file.
        path: PathBuf,
        /// Lines, counted from 1, and what is wrong there as in [`Error::ConfigLine`]; in the order of the file.
        faults: Vec<(usize, String)>,
        /// How many more faults there are, which are not listed.
        more: usize,
    },
    /// A configuration has several faults. A line for each.
    #[error("{}", Faults { faults, more: *more })]
    Configuration {
        /// The faults.
        faults: Vec<Error>,
        /// How many more there are, which are not listed.
        more: usize,
    },
    /// A server could not use a configuration that was to be checked.
    #[error(transparent)]
    FailedCheck(Box<Error>),
    /// An option has an invalid value.
    #[error("{option}: {fault}")]
    Option {
        /// The option as it is written on the command line.
        option: &'static str,
        /// What is wrong with its value.
        fault: String,
    },
    /// The runtime, a thread or a signal handler could not be set up.
    #[error("cannot {action}: {source}")]
    Runtime {
        /// The failed operation.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// A task that must run as long as the server ended by itself.
    #[error("the {task} ended unasked: {fault}")]
    TaskEnded {
        /// The task.
        task: &'static str,
        /// How it ended.
        fault: String,
    },
}

impl Error {
    /// A task has ended by itself, and says of no error.
    pub(crate) fn ended_unasked(task: &'static str) -> Self {
        Error::TaskEnded { task, fault: "it thought that it was done".to_owned() }
    }

    /// A file or socket that the server works with cannot be used.
    pub(crate) fn file(path: impl Into<PathBuf>, fault: impl Into<String>) -> Self {
        Error::File { path: path.into(), fault: fault.into(), is_configuration: false }
    }

    /// A file of the configuration, such as a secret, cannot be used.
    pub(crate) fn configuration_file(path: impl Into<PathBuf>, fault: impl Into<String>) -> Self {
        Error::File { path: path.into(), fault: fault.into(), is_configuration: true }
    }

    /// The exit status of a program that ends with this error: 2 for usage and configuration, 1 for the rest.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Configuration { faults, .. } => faults.iter().map(Error::exit_status).max().unwrap_or(2),
            Error::UnknownGroup { .. }
            | Error::PlaintextRemote { .. }
            | Error::SocketPathTooLong { .. }
            | Error::MetricsUnprotected { .. }
            | Error::File { is_configuration: true, .. }
            | Error::Usage(_)
            | Error::FailedCheck(_)
            | Error::ConfigLine { .. }
            | Error::ConfigLines { .. }
            | Error::Option { .. } => 2,
            Error::SocketInUse { .. }
            | Error::NotASocket { .. }
            | Error::UnsafeDirectory { .. }
            | Error::Socket { .. }
            | Error::GivenSocket { .. }
            | Error::Listener { .. }
            | Error::UdpAddress { .. }
            | Error::StateDirectory { .. }
            | Error::UnsafeStateDirectory { .. }
            | Error::StateInUse { .. }
            | Error::NewerState { .. }
            | Error::StateDatabase { .. }
            | Error::HostName { .. }
            | Error::MetricsAddress { .. }
            | Error::AuditLog { .. }
            | Error::File { is_configuration: false, .. }
            | Error::Runtime { .. }
            | Error::TaskEnded { .. } => 1,
        }
    }

    /// The option whose value is wrong, without dashes, if there is exactly one.
    pub(crate) fn option(&self) -> Option<&str> {
        match self {
            Error::UnknownGroup { .. } => Some("socket-group"),
            Error::PlaintextRemote { .. } => Some("udp"),
            Error::MetricsUnprotected { .. } | Error::MetricsAddress { .. } => Some("metrics-addr"),
            Error::Option { option, .. }
            | Error::HostName { option, .. }
            | Error::UdpAddress { option, .. } => option.strip_prefix("--")?.split(' ').next(),
            Error::SocketInUse { .. }
            | Error::NotASocket { .. }
            | Error::UnsafeDirectory { .. }
            | Error::SocketPathTooLong { .. }
            | Error::Socket { .. }
            | Error::GivenSocket { .. }
            | Error::Listener { .. }
            | Error::StateDirectory { .. }
            | Error::UnsafeStateDirectory { .. }
            | Error::StateInUse { .. }
            | Error::NewerState { .. }
            | Error::StateDatabase { .. }
            | Error::AuditLog { .. }
            | Error::File { .. }
            | Error::Usage(_)
            | Error::ConfigLine { .. }
            | Error::ConfigLines { .. }
            | Error::Configuration { .. }
            | Error::FailedCheck(_)
            | Error::Runtime { .. }
            | Error::TaskEnded { .. } => None,
        }
    }
}

/// Faults of a configuration, a line for each.
struct Faults<'e> {
    faults: &'e [Error],
    more: usize,
}

impl fmt::Display for Faults<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(formatter, "{end}{fault}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(formatter, "\nand {more} more faults"),
        }
    }
}

/// The faults of a file, a line for each.
struct Lines<'e> {
    path: &'e Path,
    faults: &'e [(usize, String)],
    more: usize,
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (index, (line, fault)) in self.faults.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(formatter, "{end}{path}:{line}: {fault}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(formatter, "\n{path}: and {more} more faults"),
        }
    }
}
