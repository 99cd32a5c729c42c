//! Where agents beat, and whose beats are taken.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use varta_proto::address::default_socket_path;

use crate::base::SocketOptions;
use crate::base::error::Error;
use crate::base::options::values::{find_group, parse_group, parse_mode, parse_user};
use crate::base::options::{HostPort, Id, Mode, Size, names, parse_host_port, parse_size};
use crate::ingest::{AllowedSenders, KeyFiles, UdpOptions};

/// The default length of the queue of a Unix socket, in datagrams: more than one sender can have on the way.
const DEFAULT_SOCKET_QUEUE: usize = 1_024;
/// The longest that can be configured: all of it may be datagrams of 200 KiB that nobody reads.
const MAX_SOCKET_QUEUE: usize = 65_536;
/// The default receive buffer of a UDP socket, in bytes as the kernel counts them: some ten thousand beats.
const DEFAULT_UDP_RECEIVE_BUFFER: usize = 8 << 20;
/// The default for how many agents may share memory with the server: each takes one of the 65,530 mappings
/// that a process has by default (`vm.max_map_count`).
const DEFAULT_MAX_SHM_AGENTS: usize = 16_384;
/// The most sockets on which agents beat.
const MAX_LISTENERS: usize = 64;
/// The largest receive buffer that can be configured, in bytes.
const MAX_RECEIVE_BUFFER: usize = 1 << 30;

/// Where agents beat. A group of options.
#[derive(Clone, Debug, Args)]
pub struct IngestArgs {
    /// Path of a Unix datagram socket to listen on; `none` for none
    ///
    /// May be given more than once. Default: $RUNTIME_DIRECTORY/varta.sock, else
    /// $XDG_RUNTIME_DIR/varta/varta.sock, else /run/varta/varta.sock for root and /tmp/varta-UID/varta.sock for
    /// others. The server creates a missing directory with mode 0700.
    #[arg(long, env = "VARTA_SOCKET", value_name = "PATH")]
    pub socket: Vec<PathBuf>,

    /// Permissions of the socket file, in octal
    ///
    /// They say which users may connect. With 0666 every user of the host can fill the socket's queue, also one
    /// whose beats are refused; 0660 and --socket-group keep them out.
    #[arg(long, env = "VARTA_SOCKET_MODE", value_name = "OCTAL", default_value = "0600",
          value_parser = parse_mode)]
    pub socket_mode: Mode,

    /// Group of the socket file, by name or number
    #[arg(long, env = "VARTA_SOCKET_GROUP", value_name = "NAME")]
    pub socket_group: Option<String>,

    /// Datagrams that the queue of the socket is to hold: as many may arrive in one moment
    ///
    /// More than net.unix.max_dgram_qlen, which is 10 on many hosts, takes CAP_SYS_ADMIN: the server then makes
    /// the socket in a network namespace of its own, and changes no setting of the host. Without it the queue
    /// is that of the host.
    #[arg(long, env = "VARTA_SOCKET_QUEUE", value_name = "N", default_value_t = DEFAULT_SOCKET_QUEUE,
          hide_short_help = true)]
    pub socket_queue: usize,

    /// User whose processes may also beat, by name or number
    ///
    /// Besides those of this server's user and of root. May be given more than once. The user must also be able
    /// to open the socket: see --socket-mode and --socket-group.
    #[arg(long, env = "VARTA_ALLOW_UID", value_name = "USER", value_delimiter = ',',
          value_parser = parse_user)]
    pub allow_uid: Vec<Id>,

    /// Group whose members' processes may also beat
    ///
    /// By name or number; may be given more than once. A process is a member by its primary group or by a
    /// supplementary one.
    #[arg(long, env = "VARTA_ALLOW_GID", value_name = "GROUP", value_delimiter = ',',
          value_parser = parse_group)]
    pub allow_gid: Vec<Id>,

    /// UDP address for plaintext beats; port 0 picks a free port
    ///
    /// May be given more than once. An IP address, or the name of a host: of its addresses the first IPv4 one
    /// is taken, else the first. Any program that can reach the address can impersonate any agent of another
    /// host, so an address that is not loopback needs --allow-plaintext-remote. `[::]` also accepts IPv4,
    /// unless 0.0.0.0 is given with the same port.
    #[arg(long, env = "VARTA_UDP", value_name = "ADDR", value_delimiter = ',',
          value_parser = parse_host_port)]
    pub udp: Vec<HostPort>,

    /// Also accept plaintext beats from the network
    #[arg(long, env = "VARTA_ALLOW_PLAINTEXT_REMOTE", value_parser = FalseyValueParser::new())]
    pub allow_plaintext_remote: bool,

    /// UDP address for encrypted beats; needs a key file
    ///
    /// May be given more than once. An IP address, or the name of a host: of its addresses the first IPv4 one
    /// is taken, else the first.
    #[arg(long, env = "VARTA_SECURE_UDP", value_name = "ADDR", value_delimiter = ',',
          value_parser = parse_host_port)]
    pub secure_udp: Vec<HostPort>,

    /// File with the key that server and agents share
    ///
    /// 64 hexadecimal characters. Key files must be closed to others (chmod 600) and belong to this server's
    /// user or root. SIGHUP reloads them.
    #[arg(long, env = "VARTA_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// File with further accepted shared keys, one per line: the old and the new key during a key rotation
    #[arg(long, env = "VARTA_ACCEPTED_KEY_FILE", value_name = "FILE", hide_short_help = true)]
    pub accepted_key_file: Option<PathBuf>,

    /// File with the master key from which agents derive their keys
    ///
    /// During a rotation several, one per line.
    #[arg(long, env = "VARTA_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,

    /// Size of the receive buffer of a UDP socket, as the kernel counts it
    ///
    /// Without CAP_NET_ADMIN the kernel grants no more than twice net.core.rmem_max.
    #[arg(long, env = "VARTA_UDP_RECEIVE_BUFFER", value_name = "SIZE",
          default_value_t = Size(DEFAULT_UDP_RECEIVE_BUFFER as u64), value_parser = parse_size,
          hide_short_help = true)]
    pub udp_receive_buffer: Size,

    /// Maximum number of local agents that beat through a page of memory; further agents beat by datagrams; 0
    /// for none
    ///
    /// Each page takes 4 KiB, charged to the agent, and one of the mappings that vm.max_map_count allows.
    #[arg(long, env = "VARTA_MAX_SHM_AGENTS", value_name = "N", default_value_t = DEFAULT_MAX_SHM_AGENTS,
          hide_short_help = true)]
    pub max_shm_agents: usize,
}

/// The options that running listeners and their keys take over: all of [`IngestArgs`] but the length of a queue, which
/// the kernel gives a socket when it is made.
pub(crate) fn live_options() -> impl Iterator<Item = String> {
    names::<IngestArgs>().into_iter().filter(|option| option != "socket-queue")
}

impl IngestArgs {
    /// What these options say.
    ///
    /// # Errors
    ///
    /// When the group is not known, or the host of an address has no address.
    pub fn options(self) -> Result<IngestOptions, Error> {
        let us = nix::unistd::geteuid().as_raw();
        let group = self.socket_group.map(find_group).transpose()?;
        let is_default = self.socket.is_empty();
        let paths = if is_default { vec![default_socket_path(us)] } else { self.socket };
        let sockets: Vec<_> = paths
            .into_iter()
            .filter(|path| path.as_os_str() != "none")
            .map(|path| SocketOptions { path, is_default, mode: self.socket_mode.0, group })
            .collect();
        let mut allowed = AllowedSenders::of_server();
        allowed.add(self.allow_uid.iter().map(|id| id.0), self.allow_gid.iter().map(|id| id.0));
        Ok(IngestOptions {
            sockets,
            socket_queue: self.socket_queue,
            allowed,
            udp: resolve("--udp", &self.udp)?,
            allow_plaintext_remote: self.allow_plaintext_remote,
            secure_udp: resolve("--secure-udp", &self.secure_udp)?,
            keys: KeyFiles {
                key: self.key_file,
                accepted: self.accepted_key_file,
                master: self.master_key_file,
            },
            max_shm_agents: self.max_shm_agents,
            udp_receive_buffer: usize::try_from(self.udp_receive_buffer.0).unwrap_or(usize::MAX),
        })
    }
}

/// The addresses, with the names in them looked up.
fn resolve(option: &'static str, addresses: &[HostPort]) -> Result<Vec<SocketAddr>, Error> {
    addresses.iter().map(|address| address.resolve(option)).collect()
}

/// Where agents beat, and whose beats are taken.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Unix sockets to listen on.
    pub sockets: Vec<SocketOptions>,
    /// How many datagrams the queue of each of them is to hold.
    pub socket_queue: usize,
    /// Whose beats are accepted on them.
    pub allowed: AllowedSenders,
    /// UDP addresses to listen on for plaintext.
    pub udp: Vec<SocketAddr>,
    /// Whether those may be other than loopback.
    pub allow_plaintext_remote: bool,
    /// UDP addresses to listen on for sealed datagrams.
    pub secure_udp: Vec<SocketAddr>,
    /// The keys that open those.
    pub keys: KeyFiles,
    /// How many pages of memory local agents may share with the server; 0 for none.
    pub max_shm_agents: usize,
    /// How many bytes of datagrams are to fit the queue of a UDP socket, counted as the kernel does.
    pub udp_receive_buffer: usize,
}

impl IngestOptions {
    /// The defaults, with one Unix socket at `path`.
    #[must_use]
    pub fn for_socket(path: PathBuf) -> Self {
        IngestOptions {
            sockets: vec![SocketOptions { path, is_default: false, mode: 0o600, group: None }],
            socket_queue: DEFAULT_SOCKET_QUEUE,
            allowed: AllowedSenders::of_server(),
            udp: Vec::new(),
            allow_plaintext_remote: false,
            secure_udp: Vec::new(),
            keys: KeyFiles::default(),
            max_shm_agents: DEFAULT_MAX_SHM_AGENTS,
            udp_receive_buffer: DEFAULT_UDP_RECEIVE_BUFFER,
        }
    }

    /// Whether all beats come as plaintext over UDP, which authenticates no sender.
    #[must_use]
    pub fn is_only_plain(&self) -> bool {
        self.sockets.is_empty() && self.secure_udp.is_empty()
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense, by its name on the command line.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |option, fault: &str| Err(Error::Option { option, fault: fault.to_owned() });
        if self.is_only_plain() && self.udp.is_empty() {
            let fault = "leaves nothing to listen on; give a path, or --udp or --secure-udp";
            return wrong("--socket none", fault);
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            if socket.path.as_os_str().is_empty() {
                return wrong("--socket", "the path is empty");
            }
            if self.sockets[..index].iter().any(|earlier| earlier.path == socket.path) {
                return wrong("--socket", &format!("{} is given twice", socket.path.display()));
            }
        }
        if let Some(address) = self.udp.iter().find(|address| !address.ip().to_canonical().is_loopback())
            && !self.allow_plaintext_remote
        {
            return Err(Error::PlaintextRemote { address: *address });
        }
        if self.allow_plaintext_remote && self.udp.is_empty() {
            return wrong("--allow-plaintext-remote", "does nothing without --udp");
        }
        if !self.secure_udp.is_empty() && self.keys.are_none() {
            return wrong("--secure-udp", "needs a --key-file, --accepted-key-file or --master-key-file");
        }
        if self.secure_udp.is_empty()
            && let Some(option) = self.keys.option()
        {
            return wrong(option, "keys do nothing without --secure-udp");
        }
        let listeners = self.sockets.len() + self.udp.len() + self.secure_udp.len();
        if listeners > MAX_LISTENERS {
            let fault = format!("{listeners} sockets to listen on with --socket, --udp and --secure-udp");
            return wrong("--socket", &format!("makes it {fault}; at most {MAX_LISTENERS}"));
        }
        let addresses: Vec<_> = self.udp.iter().chain(&self.secure_udp).collect();
        for (index, address) in addresses.iter().enumerate() {
            if address.port() != 0 && addresses[..index].contains(address) {
                return Err(Error::Option { option: "--udp", fault: format!("{address} is given twice") });
            }
        }
        if self.socket_queue == 0 || self.socket_queue > MAX_SOCKET_QUEUE {
            return wrong("--socket-queue", &format!("is not between 1 and {MAX_SOCKET_QUEUE}"));
        }
        if self.udp_receive_buffer == 0 || self.udp_receive_buffer > MAX_RECEIVE_BUFFER {
            return wrong("--udp-receive-buffer", "is not between 1 byte and 1 GiB");
        }
        Ok(())
    }

    /// The options for the socket at one of the UDP addresses.
    pub(crate) fn udp_socket(&self, address: SocketAddr) -> UdpOptions {
        let is_other_half = |other: &SocketAddr| {
            other.ip() == Ipv4Addr::UNSPECIFIED && other.port() == address.port() && address.port() != 0
        };
        let only_v6 = self.udp.iter().chain(&self.secure_udp).any(is_other_half);
        UdpOptions { address, only_v6, receive_buffer: self.udp_receive_buffer }
    }
}
