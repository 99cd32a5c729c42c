//! What the server is to do, checked: whoever has a [`Config`] need not check it again.

mod content;
mod detector;
mod entry;
mod expected;
mod file;
mod maintenance;
mod moment;
mod recovery;
mod rules;

pub use self::entry::EntryError;
pub use self::expected::{Expected, ExpectedAgents};
pub use self::file::{ConfigFile, Reread};
pub use self::maintenance::{ControlSocket, Maintenance, PlannedPause, PlannedPauses, Reason};
pub use self::recovery::RecoveryEntry;
pub use self::rules::{Glob, Rule, Rules};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::detector::check_detector;
use crate::alerts::AlertOptions;
use crate::audit::AuditOptions;
use crate::cli::RecoveryArgs;
use crate::error::Error;
use crate::events::EventsOptions;
use crate::listener::{AllowedSenders, KeyFiles, SocketOptions};
use crate::metrics::agents::AgentMetrics;
use crate::recording::RecordOptions;
use crate::recovery::RecoveryOptions;
use crate::secret::Secret;
use crate::tracker::Policy;

/// The least that an agent may be given: below it the timers of a general-purpose system decide, not the agent.
pub const SHORTEST_STALL_AFTER: Duration = Duration::from_millis(10);
/// The longest time for any option.
pub const LONGEST_DURATION: Duration = Duration::from_secs(366 * 86_400);
/// The queue of a UDP socket that nobody has to give, in bytes as the kernel counts them: some ten thousand beats.
pub const DEFAULT_UDP_RECEIVE_BUFFER: usize = 8 << 20;
/// How many agents may share memory with the server if nobody says otherwise: each takes one of the 65,530 mappings that a
/// process usually may have (`vm.max_map_count`).
pub const DEFAULT_MAX_SHM_AGENTS: usize = 16_384;
/// The most that can be asked for.
const LARGEST_RECEIVE_BUFFER: usize = 1 << 30;
/// The address for metrics that nobody has to give.
pub const DEFAULT_METRICS_ADDR: &str = "127.0.0.1:9843";

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
    /// Where to serve metrics; `None` for nowhere.
    pub metrics_addr: Option<SocketAddr>,
    /// What a client must show to read them.
    pub metrics_token: Option<Secret>,
    /// For which agents there are rows of their own.
    pub agent_metrics: AgentMetrics,
    /// Where what is known of agents is kept for the next server; `None` for nowhere.
    pub state_dir: Option<PathBuf>,
    /// What is to be recorded of what arrives; `None` for nothing.
    pub record: Option<RecordOptions>,
    /// What is done about agents in bad states.
    pub recovery: RecoveryOptions,
    /// The options of that, for when the file is read again; `None` when nothing of it may change.
    pub recovery_args: Option<RecoveryArgs>,
    /// By which ways agents can be paused.
    pub maintenance: Maintenance,
    /// Where recoveries are recorded; `None` for nowhere.
    pub audit: Option<AuditOptions>,
    /// Where changes of verdict are written; `None` for nowhere but the log.
    pub events: Option<EventsOptions>,
    /// Who is told of agents in alarm.
    pub alerts: AlertOptions,
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
            metrics_addr: None,
            metrics_token: None,
            agent_metrics: AgentMetrics::Auto,
            state_dir: None,
            record: None,
            recovery: RecoveryOptions::default(),
            recovery_args: None,
            maintenance: Maintenance::default(),
            audit: None,
            events: None,
            alerts: AlertOptions::default(),
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
        if let Some(ControlSocket { path, .. }) = &self.maintenance.control {
            if path.as_os_str().is_empty() {
                return wrong("--control-socket", "the path is empty".to_owned());
            }
            if self.sockets.iter().any(|socket| socket.path == *path) {
                let fault = format!("{} is a --socket already; give it a path of its own", path.display());
                return wrong("--control-socket", fault);
            }
        }
        self.check_network()?;
        self.alerts.check()?;
        check_policy(&self.policy)?;
        if let Some(RecordOptions { limit, .. }) = self.record
            && limit < RecordOptions::SMALLEST_LIMIT
        {
            let least = RecordOptions::SMALLEST_LIMIT;
            return wrong("--record-limit", format!("{limit} is less than the least of {least} bytes"));
        }
        self.audit.as_ref().map_or(Ok(()), AuditOptions::check)?;
        if self.audit.is_none() && self.recovery.goes_on_without_trail {
            let fault = "does nothing without --audit-log";
            return wrong("--recovery-without-audit", fault.to_owned());
        }
        if self.audit.is_some() && self.recovery.rules.is_empty() && self.recovery_args.is_none() {
            let fault = "does nothing without --recovery-exec or a [[recovery]] table";
            return wrong("--audit-log", fault.to_owned());
        }
        self.events.as_ref().map_or(Ok(()), EventsOptions::check)?;
        if let Some(address) = self.metrics_addr
            && !address.ip().is_loopback()
            && self.metrics_token.is_none()
        {
            return Err(Error::MetricsUnprotected { address });
        }
        Ok(())
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

/// Checks what the tracker is to go by.
pub(crate) fn check_policy(policy: &Policy) -> Result<(), Error> {
    let wrong = |option, fault: String| Err(Error::Option { option, fault });
    let Policy { stall_after, forget_after, max_agents, .. } = *policy;
    if stall_after < SHORTEST_STALL_AFTER || stall_after > LONGEST_DURATION {
        return wrong("--stall-after", format!("{stall_after:?} is not between 10ms and 366 days"));
    }
    if forget_after < stall_after || forget_after > LONGEST_DURATION {
        let fault = format!("{forget_after:?} is not between --stall-after and 366 days");
        return wrong("--forget-after", fault);
    }
    check_detector(&policy.arrival, forget_after)?;
    if max_agents == 0 {
        return wrong("--max-agents", "0 leaves no room for any agent".to_owned());
    }
    check_agents(&policy.rules, &policy.expected, policy)
}

/// Whether what is said of single agents goes together with what holds for all.
fn check_agents(rules: &Rules, expected: &ExpectedAgents, policy: &Policy) -> Result<(), Error> {
    let Policy { forget_after, max_agents, .. } = *policy;
    if let Some(Rule { name, stall_after: Some(longest) }) = rules.longest()
        && *longest > forget_after
    {
        let name = name.as_str();
        let fault = format!("{forget_after:?} is less than the {longest:?} that the rule for `{name}` gives");
        return Err(Error::Option { option: "--forget-after", fault });
    }
    let expected = expected.iter().len();
    if expected > max_agents {
        let fault = format!("{max_agents} leaves no room for the {expected} agents that are expected");
        return Err(Error::Option { option: "--max-agents", fault });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::for_socket("/tmp/varta.sock".into());
        config.check().unwrap();
        change(&mut config);
        let error = config.check().unwrap_err();
        assert_eq!(error.exit_status(), 2, "{error}");
        error.to_string()
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        assert!(
            refused(|config| config.policy.stall_after = Duration::from_millis(9))
                .starts_with("--stall-after")
        );
        assert!(
            refused(|config| config.policy.forget_after = Duration::from_secs(1))
                .starts_with("--forget-after")
        );
        assert!(refused(|config| config.policy.max_agents = 0).starts_with("--max-agents"));
        assert!(refused(|config| config.sockets.clear()).starts_with("--socket"));
        assert!(refused(|config| config.sockets.push(config.sockets[0].clone())).contains("given twice"));
        let said = refused(|config| {
            let path = config.sockets[0].path.clone();
            config.maintenance.control = Some(ControlSocket { path, is_default: false });
        });
        assert!(said.starts_with("--control-socket: /tmp/varta.sock is a --socket already"), "{said}");
        let from_anywhere = || "[::]:9844".parse().unwrap();
        assert!(refused(|config| config.udp.push(from_anywhere())).contains("--allow-plaintext-remote"));
        assert!(refused(|config| config.allow_plaintext_remote = true).contains("--udp"));
        assert!(refused(|config| config.secure_udp.push(from_anywhere())).contains("--key-file"));
        assert!(refused(|config| config.keys.key = Some("key".into())).contains("--secure-udp"));
        assert!(refused(|config| config.udp_receive_buffer = 0).starts_with("--udp-receive-buffer"));
        let patient = Rule { name: Glob::parse("slow-*").unwrap(), stall_after: Some(LONGEST_DURATION) };
        let said = refused(|config| config.policy.rules.add(patient).unwrap());
        assert!(said.starts_with("--forget-after") && said.contains("slow-*"), "{said}");
        let said = refused(|config| {
            config.policy.max_agents = 1;
            config.policy.expected.add(Expected::named("one").unwrap()).unwrap();
            config.policy.expected.add(Expected::named("two").unwrap()).unwrap();
        });
        assert!(said.starts_with("--max-agents"), "{said}");
        let everywhere = Some("0.0.0.0:9843".parse().unwrap());
        assert!(refused(|config| config.metrics_addr = everywhere).contains("--metrics-token-file"));
    }
}
