//! What the server is to do, checked: whoever has a [`Config`] need not check it again.

pub mod args;
mod document;
mod file;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use self::file::{ConfigFile, Reread};
use crate::base::SocketOptions;
use crate::base::error::Error;
pub use crate::base::glob::Glob;
pub use crate::base::limits::{EntryError, LONGEST_DURATION, SHORTEST_STALL_AFTER};
use crate::domain::tracker::Policy;
pub use crate::domain::{Expected, ExpectedAgents, Rule, Rules};
use crate::engine::options::check_policy;
use crate::ingest::options::{DEFAULT_MAX_SHM_AGENTS, DEFAULT_UDP_RECEIVE_BUFFER, LARGEST_RECEIVE_BUFFER};
use crate::ingest::{AllowedSenders, KeyFiles};
use crate::services;
pub use crate::services::Task;
pub use crate::services::maintenance::{ControlSocket, Maintenance, PlannedPause, PlannedPauses, Reason};

/// Everything that a server needs to know before it starts.
///
/// ```
/// use std::time::Duration;
/// use varta_server::config::Config;
///
/// let mut config = Config::for_socket("/tmp/varta.sock".into());
/// config.policy.stall_after = Duration::from_secs(2);
/// config.check()?;
/// # Ok::<(), varta_server::Error>(())
/// ```
#[derive(Debug)]
pub struct Config {
    /// Unix sockets to listen on.
    pub sockets: Vec<SocketOptions>,
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
    /// What the capabilities do.
    pub services: services::Options,
    /// What the tracker goes by.
    pub policy: Policy,
    /// The file of which this is made, to be read again; `None` when there is none.
    pub file: Option<ConfigFile>,
}

impl Config {
    /// The defaults, with one Unix socket at `path`, no metrics and no control socket.
    #[must_use]
    pub fn for_socket(path: PathBuf) -> Self {
        Config {
            sockets: vec![SocketOptions { path, is_default: false, mode: 0o600, group: None }],
            allowed: AllowedSenders { uids: vec![nix::unistd::geteuid().as_raw(), 0], gids: Vec::new() },
            udp: Vec::new(),
            allow_plaintext_remote: false,
            secure_udp: Vec::new(),
            keys: KeyFiles::default(),
            max_shm_agents: DEFAULT_MAX_SHM_AGENTS,
            udp_receive_buffer: DEFAULT_UDP_RECEIVE_BUFFER,
            services: services::Options::default(),
            policy: Policy::default(),
            file: None,
        }
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense, by its name on the command line.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |option, fault: String| Err(Error::Option { option, fault });
        if self.sockets.is_empty() && self.udp.is_empty() && self.secure_udp.is_empty() {
            let fault = "leaves nothing to listen on; give a path, or --udp or --secure-udp";
            return wrong("--socket none", fault.to_owned());
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            if socket.path.as_os_str().is_empty() {
                return wrong("--socket", "the path is empty".to_owned());
            }
            if self.sockets[..index].iter().any(|earlier| earlier.path == socket.path) {
                return wrong("--socket", format!("{} is given twice", socket.path.display()));
            }
        }
        self.check_network()?;
        check_policy(&self.policy)?;
        self.services.check(&self.sockets)
    }
}

impl Config {
    fn check_network(&self) -> Result<(), Error> {
        let wrong = |option, fault: &str| Err(Error::Option { option, fault: fault.to_owned() });
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
        let addresses: Vec<_> = self.udp.iter().chain(&self.secure_udp).collect();
        for (index, address) in addresses.iter().enumerate() {
            if address.port() != 0 && addresses[..index].contains(address) {
                return Err(Error::Option { option: "--udp", fault: format!("{address} is given twice") });
            }
        }
        if self.udp_receive_buffer == 0 || self.udp_receive_buffer > LARGEST_RECEIVE_BUFFER {
            return wrong("--udp-receive-buffer", "is not between 1 byte and 1 GiB");
        }
        Ok(())
    }
}
