//! What the server is to do, checked: whoever has a [`Config`] need not check it again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::listener::{AllowedSenders, SocketOptions};
use crate::metrics::agents::AgentMetrics;
use crate::secret::Secret;
use crate::tracker::Policy;

/// The least that an agent may be given: below it the timers of a general-purpose system decide, not the agent.
pub const SHORTEST_STALL_AFTER: Duration = Duration::from_millis(10);
/// The longest time for any option.
pub const LONGEST_DURATION: Duration = Duration::from_secs(366 * 86_400);
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
    /// Where to serve metrics; `None` for nowhere.
    pub metrics_addr: Option<SocketAddr>,
    /// What a client must show to read them.
    pub metrics_token: Option<Secret>,
    /// For which agents there are rows of their own.
    pub agent_metrics: AgentMetrics,
    /// What the tracker goes by.
    pub policy: Policy,
}

impl Config {
    /// The defaults, with one Unix socket at `path` and no metrics.
    #[must_use]
    pub fn for_socket(path: PathBuf) -> Self {
        Config {
            sockets: vec![SocketOptions { path, is_default: false, mode: 0o600, group: None }],
            allowed: AllowedSenders { uids: vec![nix::unistd::geteuid().as_raw(), 0], gids: Vec::new() },
            metrics_addr: None,
            metrics_token: None,
            agent_metrics: AgentMetrics::Auto,
            policy: Policy::default(),
        }
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense, by its name on the command line.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |option, fault: String| Err(Error::Option { option, fault });
        if self.sockets.is_empty() {
            return wrong("--socket none", "leaves nothing to listen on; give a path".to_owned());
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            if socket.path.as_os_str().is_empty() {
                return wrong("--socket", "the path is empty".to_owned());
            }
            if self.sockets[..index].iter().any(|earlier| earlier.path == socket.path) {
                return wrong("--socket", format!("{} is given twice", socket.path.display()));
            }
        }
        let Policy { stall_after, forget_after, max_agents, .. } = self.policy;
        if stall_after < SHORTEST_STALL_AFTER || stall_after > LONGEST_DURATION {
            return wrong("--stall-after", format!("{stall_after:?} is not between 10ms and 366 days"));
        }
        if forget_after < stall_after || forget_after > LONGEST_DURATION {
            return wrong(
                "--forget-after",
                format!("{forget_after:?} is not between --stall-after and 366 days"),
            );
        }
        if max_agents == 0 {
            return wrong("--max-agents", "0 leaves no room for any agent".to_owned());
        }
        if let Some(address) = self.metrics_addr
            && !address.ip().is_loopback()
            && self.metrics_token.is_none()
        {
            return Err(Error::MetricsUnprotected { address });
        }
        Ok(())
    }
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
        let everywhere = Some("0.0.0.0:9843".parse().unwrap());
        assert!(refused(|config| config.metrics_addr = everywhere).contains("--metrics-token-file"));
    }
}
