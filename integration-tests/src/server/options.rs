//! The options with which a test starts a server.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::programs::{into_time_namespace, server_command};
use crate::route::{Network, Secret};
use crate::scratch::Scratch;

/// The options of a server. Without more than [`Options::new`] it has its socket in a directory of its own,
/// serves metrics on a port that the kernel picks, and has its defaults otherwise.
#[derive(Debug, Default)]
pub struct Options {
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) socket: Option<PathBuf>,
    pub(super) has_no_socket_argument: bool,
    pub(super) secrets: Vec<Secret>,
    pub(super) is_open_to_all: bool,
    pub(super) log_is_left_unread: bool,
    pub(super) is_in_a_container: bool,
    pub(super) boot_clock_ahead: Option<u32>,
    pub(super) starter: Vec<OsString>,
}

impl Options {
    /// A server with its defaults.
    #[must_use]
    pub fn new() -> Self {
        Options::default()
    }

    /// Adds an argument, or an option and its value.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to its environment, which is empty otherwise.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Puts the socket at this path.
    #[must_use]
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.to_path_buf());
        self
    }

    /// Adds an option whose value is a path.
    #[must_use]
    pub fn path(self, option: &str, path: &Path) -> Self {
        self.args([Path::new(option), path])
    }

    /// Puts the socket where the server before it had its own, and reads and keeps state there.
    #[must_use]
    pub fn in_scratch(self, scratch: &Scratch) -> Self {
        self.socket(&scratch.socket()).path("--state-dir", &scratch.state())
    }

    /// Writes this text into a file, and has it read as the configuration's file.
    #[must_use]
    #[track_caller]
    pub fn config(self, scratch: &Scratch, text: &str) -> Self {
        let path = scratch.write("varta.toml", text);
        self.path("--config", &path)
    }

    /// Gives it no option for a socket: by its defaults it comes to `path`.
    #[must_use]
    pub fn finds_its_socket_at(mut self, path: &Path) -> Self {
        self.has_no_socket_argument = true;
        self.socket(path)
    }

    /// Has it listen on UDP only, where an option says so.
    #[must_use]
    pub fn without_unix_socket(mut self) -> Self {
        self.has_no_socket_argument = true;
        self.args(["--socket", "none"])
    }

    /// Has it listen for plaintext on this address too; on port 0 the kernel picks one, see
    /// [`Server::udp_address`](crate::Server::udp_address).
    #[must_use]
    pub fn udp(self, address: &str) -> Self {
        self.args(["--udp", address])
    }

    /// Has it listen for sealed beats on this address too, as [`udp`](Options::udp) does for others. It needs
    /// a key.
    #[must_use]
    pub fn secure_udp(self, address: &str) -> Self {
        self.args(["--secure-udp", address])
    }

    /// Gives it the key of a network, in a file that only its owner can read.
    #[must_use]
    pub fn key_of(mut self, network: Network) -> Self {
        self.secrets.extend(network.secret());
        self
    }

    /// Gives it further keys that it accepts, one a line.
    #[must_use]
    pub fn accepted_keys(mut self, keys: &'static str) -> Self {
        self.secrets.push(Secret { option: "--accepted-key-file", file: "accepted.keys", text: keys });
        self
    }

    /// Has it listen for beats of a network on these addresses, with the key for them.
    /// [`Server::route`](crate::Server::route) leads there.
    #[must_use]
    pub fn on(self, network: Network, addresses: &[IpAddr]) -> Self {
        addresses.iter().fold(self.key_of(network), |options, address| {
            let address = SocketAddr::new(*address, 0).to_string();
            match network {
                Network::Plain => options.udp(&address),
                Network::SharedKey | Network::MasterKey => options.secure_udp(&address),
            }
        })
    }

    /// Lets every user of the host reach the socket.
    #[must_use]
    pub fn open_to_all(mut self) -> Self {
        self.is_open_to_all = true;
        self.args(["--socket-mode", "0666"])
    }

    /// Reads its standard error until it has started, and then never again.
    #[must_use]
    pub fn leave_log_unread(mut self) -> Self {
        self.log_is_left_unread = true;
        self
    }

    /// Puts it into a PID namespace of its own, where it cannot see the processes outside.
    /// [`Server::pid`](crate::Server::pid) is then that of its parent outside.
    #[must_use]
    pub fn in_a_container(mut self) -> Self {
        self.is_in_a_container = true;
        self
    }

    /// Puts it into a time namespace of its own, whose boot clock is so many seconds ahead. `None` where that
    /// is not possible; then the test is skipped, and this prints so.
    #[must_use]
    pub fn boot_clock_ahead(self, seconds: u32) -> Option<Self> {
        into_time_namespace(seconds, &server_command())?;
        Some(Options { boot_clock_ahead: Some(seconds), ..self })
    }

    /// Has this program start it, which gets the server's command as its last arguments, and replaces itself by
    /// it.
    #[must_use]
    pub fn started_by<T: Into<OsString>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.starter = words.into_iter().map(Into::into).collect();
        self
    }
}

/// Options that are only arguments.
impl<const N: usize> From<[&str; N]> for Options {
    fn from(arguments: [&str; N]) -> Self {
        Options::new().args(arguments)
    }
}
