//! The address of HTTP, who may read `/metrics`, and the agents with rows of their own.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;

use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::options::values::parse_address;
use crate::base::options::{Address, LookUps, OptionFaults};
use crate::base::secret::Secret;
use crate::metrics::agent_rows::AgentMetrics;
use crate::services::http::certificate::TlsIdentity;
use crate::services::http::users::Users;

/// The default address for metrics.
const DEFAULT_METRICS_ADDR: &str = "127.0.0.1:9843";

/// Where metrics are served. A group of options.
#[derive(Clone, Debug, Args)]
pub struct HttpArgs {
    /// Address for metrics, or `none`
    ///
    /// It serves /metrics, /healthz and /readyz; port 0 picks a free port. An IP address, or the name of a
    /// host: of its addresses the first IPv4 one is taken, else the first. An address that is not loopback
    /// needs --metrics-token-file or --metrics-basic-auth-file.
    #[arg(long, env = "VARTA_METRICS_ADDR", value_name = "ADDR", default_value = DEFAULT_METRICS_ADDR,
          value_parser = parse_address)]
    pub metrics_addr: Address,

    /// File with the bearer token that /metrics requires
    ///
    /// It must be readable by its owner only.
    #[arg(long, env = "VARTA_METRICS_TOKEN_FILE", value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,

    /// File with names and passwords for /metrics
    ///
    /// Lines of NAME:HASH with hashes of bcrypt, as `htpasswd -nB NAME` prints them, of a cost of at most 14. With
    /// --metrics-token-file a token or a password is enough. No other user may read the file, but a group if it
    /// belongs to root.
    #[arg(long, env = "VARTA_METRICS_BASIC_AUTH_FILE", value_name = "FILE")]
    pub metrics_basic_auth_file: Option<PathBuf>,

    /// File with the certificate, and those of its chain, for HTTPS
    ///
    /// PEM; the first certificate is that of this server. With it the address answers over TLS 1.2 and 1.3, and
    /// not in plaintext. A reload reads it again.
    #[arg(long, env = "VARTA_METRICS_TLS_CERT", value_name = "FILE")]
    pub metrics_tls_cert: Option<PathBuf>,

    /// File with the private key of that certificate
    ///
    /// PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted. No other user may read it, but a group if it belongs to root.
    #[arg(long, env = "VARTA_METRICS_TLS_KEY", value_name = "FILE")]
    pub metrics_tls_key: Option<PathBuf>,

    /// File with the bearer token of those who may act by the API
    ///
    /// Who shows it may pause agents, and read. Without it the API only reads, but on the control socket. It must be
    /// readable by its owner only.
    #[arg(long, env = "VARTA_API_TOKEN_FILE", value_name = "FILE", hide_short_help = true)]
    pub api_token_file: Option<PathBuf>,

    /// Agents that have series of their own in /metrics
    #[arg(
        long,
        env = "VARTA_AGENT_METRICS",
        value_name = "WHICH",
        value_enum,
        default_value_t,
        hide_short_help = true
    )]
    pub agent_metrics: AgentMetrics,
}

impl HttpArgs {
    /// What these options say.
    ///
    /// # Errors
    ///
    /// When the token, the passwords or the certificate cannot be used, or the host of the address has no address, and
    /// what [`HttpOptions::check`] finds besides.
    pub fn options(self, look_ups: LookUps) -> Result<HttpOptions, Error> {
        let mut faults = OptionFaults::default();
        let HttpArgs {
            metrics_addr,
            metrics_token_file,
            metrics_basic_auth_file,
            metrics_tls_cert,
            metrics_tls_key,
            api_token_file,
            agent_metrics,
        } = self;
        let [token, api_token] = [metrics_token_file, api_token_file].map(|file| {
            let path = file?;
            let token = look_ups.find(|| Secret::from_file(&path), Secret::stand_in);
            Some(faults.value_or(token, Secret::stand_in))
        });
        let users = metrics_basic_auth_file.map(|path| {
            let users = look_ups.find(|| Users::read(&path), Users::nobody);
            faults.value_or(users, Users::nobody)
        });
        let address = metrics_addr.0.map(|address| {
            faults.value_or(address.resolve("--metrics-addr", look_ups), || address.stand_in())
        });
        let (has_certificate, has_key) = (metrics_tls_cert.is_some(), metrics_tls_key.is_some());
        faults.add_useless([
            ("--metrics-tls-cert", has_certificate, has_key, "--metrics-tls-key"),
            ("--metrics-tls-key", has_key, has_certificate, "--metrics-tls-cert"),
        ]);
        let tls = metrics_tls_cert.zip(metrics_tls_key).and_then(|(certificate, key)| {
            let read = look_ups.find(|| TlsIdentity::read(&certificate, &key).map(Some), || None);
            faults.value_or(read, || None)
        });
        faults
            .finish(HttpOptions { address, token, api_token, users, tls, agent_metrics }, HttpOptions::check)
    }
}

/// Where HTTP is served; nowhere by default.
#[derive(Debug, Default)]
pub struct HttpOptions {
    /// The address; `None` for nowhere.
    pub address: Option<SocketAddr>,
    /// What a client must show to read metrics.
    pub token: Option<Secret>,
    /// What a client must show to act; `None` if none may.
    pub api_token: Option<Secret>,
    /// The users whose passwords let a client read metrics, too.
    pub users: Option<Users>,
    /// With what it is served over TLS; `None` for plaintext.
    pub tls: Option<TlsIdentity>,
    /// For which agents there are rows of their own.
    pub agent_metrics: AgentMetrics,
}

impl HttpOptions {
    /// Checks that the address can be listened at.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        if let Some(address) = self.address {
            let listened = TcpListener::bind(address);
            host.address(listened.map_err(|source| Error::MetricsAddress { address, source }));
        }
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// When metrics would be open to the network.
    pub fn check(&self) -> Result<(), Error> {
        match self.address {
            Some(address) if !address.ip().is_loopback() && self.token.is_none() && self.users.is_none() => {
                Err(Error::MetricsUnprotected { address })
            }
            Some(_) | None => Ok(()),
        }
    }
}
