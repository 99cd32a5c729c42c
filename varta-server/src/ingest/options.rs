//! Where agents beat, and whose beats are taken.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use varta_proto::address::default_socket_path;

use crate::base::SocketOptions;
use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::limits::MAX_DURATION;
use crate::base::options::values::{find_group, parse_group, parse_mode, parse_user};
use crate::base::options::{
    HostPort, Id, LookUps, Mode, OptionFaults, Size, names, parse_host_port, parse_size,
};
use crate::ingest::{AllowedSenders, KeyFiles, Keyring, NotifyAddress, UdpOptions, udp};

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

    /// Socket for sd_notify(3): a path, or `@` and an abstract name
    ///
    /// What was written for systemd finds it in NOTIFY_SOCKET, and is an agent by its main process. May be given more
    /// than once. A service is watched by its process alone until it sends its first keep-alive (WATCHDOG=1).
    #[arg(long, env = "VARTA_NOTIFY_SOCKET", value_name = "ADDRESS", value_parser = parse_notify_address)]
    pub notify_socket: Vec<NotifyAddress>,

    /// Permissions of the socket file for notifications, in octal
    ///
    /// Services open it after they have become another user. Whose notifications count is said by --allow-uid and
    /// --allow-gid.
    #[arg(long, env = "VARTA_NOTIFY_SOCKET_MODE", value_name = "OCTAL", default_value = "0666",
          value_parser = parse_mode, hide_short_help = true)]
    pub notify_socket_mode: Mode,

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
    /// Users, groups and hosts that are not known, and what [`IngestOptions::check`] finds besides.
    pub fn options(self, look_ups: LookUps) -> Result<IngestOptions, Error> {
        let mut faults = OptionFaults::default();
        let us = nix::unistd::geteuid().as_raw();
        let group = self.socket_group.and_then(|name| faults.value(find_group(name, look_ups)));
        let is_default = self.socket.is_empty();
        let paths = if is_default { vec![default_socket_path(us)] } else { self.socket };
        let sockets: Vec<_> = paths
            .into_iter()
            .filter(|path| path.as_os_str() != "none")
            .map(|path| SocketOptions { path, is_default, mode: self.socket_mode.0, group })
            .collect();
        let notify_mode = self.notify_socket_mode.0;
        let notify = self.notify_socket.into_iter();
        let notify = notify.map(|address| NotifySocket { address, mode: notify_mode, group }).collect();
        let uids = faults.values(self.allow_uid.iter().map(|id| id.user("--allow-uid", look_ups)));
        let gids = faults.values(self.allow_gid.iter().map(|id| id.group("--allow-gid", look_ups)));
        let mut allowed = AllowedSenders::of_server();
        allowed.add(uids, gids);
        let mut resolve = |option, addresses: Vec<HostPort>| {
            let address = |address: &HostPort| {
                faults.value_or(address.resolve(option, look_ups), || address.stand_in())
            };
            addresses.iter().map(address).collect()
        };
        let (udp, secure_udp) = (resolve("--udp", self.udp), resolve("--secure-udp", self.secure_udp));
        let options = IngestOptions {
            sockets,
            socket_queue: self.socket_queue,
            allowed,
            notify,
            udp,
            allow_plaintext_remote: self.allow_plaintext_remote,
            secure_udp,
            keys: KeyFiles {
                key: self.key_file,
                accepted: self.accepted_key_file,
                master: self.master_key_file,
            },
            max_shm_agents: self.max_shm_agents,
            udp_receive_buffer: usize::try_from(self.udp_receive_buffer.0).unwrap_or(usize::MAX),
        };
        faults.finish(options, IngestOptions::check)
    }
}

/// A socket for notifications, as in sd_notify(3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifySocket {
    /// Where services find it.
    pub address: NotifyAddress,
    /// The permission bits of its file, if it has one.
    pub mode: u32,
    /// The group of the file; `None` for that of the process.
    pub group: Option<u32>,
}

impl NotifySocket {
    /// By what its file is made.
    pub(crate) fn options(&self) -> SocketOptions {
        let path = match &self.address {
            NotifyAddress::Path(path) => path.clone(),
            NotifyAddress::Abstract(name) => name.into(),
        };
        SocketOptions { path, is_default: false, mode: self.mode, group: self.group }
    }
}

fn parse_notify_address(text: &str) -> Result<NotifyAddress, String> {
    text.parse()
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
    /// Sockets for notifications.
    pub notify: Vec<NotifySocket>,
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
        let socket = SocketOptions { path, is_default: false, mode: 0o600, group: None };
        IngestOptions { sockets: vec![socket], ..IngestOptions::default() }
    }
}

impl Default for IngestOptions {
    fn default() -> Self {
        IngestOptions {
            sockets: Vec::new(),
            socket_queue: DEFAULT_SOCKET_QUEUE,
            allowed: AllowedSenders::of_server(),
            notify: Vec::new(),
            udp: Vec::new(),
            allow_plaintext_remote: false,
            secure_udp: Vec::new(),
            keys: KeyFiles::default(),
            max_shm_agents: DEFAULT_MAX_SHM_AGENTS,
            udp_receive_buffer: DEFAULT_UDP_RECEIVE_BUFFER,
        }
    }
}

impl IngestOptions {
    /// Whether all beats come as plaintext over UDP, which authenticates no sender.
    #[must_use]
    pub fn is_only_plain(&self) -> bool {
        self.sockets.is_empty() && self.secure_udp.is_empty()
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The options whose values make no sense, by their names on the command line.
    pub fn check(&self) -> Result<(), Error> {
        let mut faults = OptionFaults::default();
        if self.is_only_plain() && self.udp.is_empty() {
            faults.add("--socket none", "leaves nothing to listen on; give a path, or --udp or --secure-udp");
        }
        for (index, socket) in self.sockets.iter().take(MAX_LISTENERS).enumerate() {
            if socket.path.as_os_str().is_empty() {
                faults.add("--socket", "the path is empty");
            } else if self.sockets[..index].iter().any(|earlier| earlier.path == socket.path) {
                faults.add("--socket", format!("{} is given twice", socket.path.display()));
            }
        }
        if let Some(address) = self.udp.iter().find(|address| !address.ip().to_canonical().is_loopback())
            && !self.allow_plaintext_remote
        {
            faults.push(Error::PlaintextRemote { address: *address });
        }
        if self.allow_plaintext_remote && self.udp.is_empty() {
            faults.add("--allow-plaintext-remote", "does nothing without --udp");
        }
        if !self.secure_udp.is_empty() && self.keys.are_none() {
            faults.add("--secure-udp", "needs a --key-file, --accepted-key-file or --master-key-file");
        }
        if self.secure_udp.is_empty()
            && let Some(option) = self.keys.option()
        {
            faults.add(option, "keys do nothing without --secure-udp");
        }
        for (index, socket) in self.notify.iter().take(MAX_LISTENERS).enumerate() {
            let address = &socket.address;
            if self.notify[..index].iter().any(|earlier| earlier.address == *address) {
                faults.add("--notify-socket", format!("{address} is given twice"));
            }
            if self.sockets.iter().any(|other| Some(&*other.path) == address.path()) {
                faults.add("--notify-socket", format!("{address} is that of --socket"));
            }
        }
        let listeners = self.sockets.len() + self.udp.len() + self.secure_udp.len() + self.notify.len();
        if listeners > MAX_LISTENERS {
            let fault = format!(
                "{listeners} sockets to listen on with --socket, --udp, --secure-udp and --notify-socket"
            );
            faults.add("--socket", format!("makes it {fault}; at most {MAX_LISTENERS}"));
        }
        // Of too many not each is compared with each.
        let addresses: Vec<_> = self.udp.iter().chain(&self.secure_udp).take(MAX_LISTENERS).collect();
        for (index, address) in addresses.iter().enumerate() {
            if address.port() != 0 && addresses[..index].contains(address) {
                faults.add("--udp", format!("{address} is given twice"));
            }
        }
        if self.socket_queue == 0 || self.socket_queue > MAX_SOCKET_QUEUE {
            faults.add("--socket-queue", format!("is not between 1 and {MAX_SOCKET_QUEUE}"));
        }
        if self.udp_receive_buffer == 0 || self.udp_receive_buffer > MAX_RECEIVE_BUFFER {
            faults.add("--udp-receive-buffer", "is not between 1 byte and 1 GiB");
        }
        faults.into_result()
    }

    /// Checks that the sockets can be made, that the addresses can be listened at, and that the keys can be used.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        for socket in &self.sockets {
            host.socket("--socket", &socket.path, socket.is_default);
        }
        for path in self.notify.iter().filter_map(|socket| socket.address.path()) {
            host.socket("--notify-socket", path, false);
        }
        for address in &self.udp {
            host.address(udp::bind("--udp", &self.udp_socket(*address)));
        }
        for address in &self.secure_udp {
            host.address(udp::bind("--secure-udp", &self.udp_socket(*address)));
        }
        if !self.keys.are_none() {
            host.result(Keyring::read(&self.keys, 1, MAX_DURATION, Vec::new()));
        }
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
