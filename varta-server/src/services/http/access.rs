//! What may change while the HTTP server runs: over what it answers, who may read the metrics, and which rows they
//! get.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use crate::base::clock::wall_now;
use crate::base::secret::Secret;
use crate::metrics::agent_rows::AgentMetrics;
use crate::services::http::certificate::TlsIdentity;
use crate::services::http::options::HttpOptions;

/// The settings at present. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Access(Arc<RwLock<Settings>>);

/// What the options say.
#[derive(Debug)]
pub(super) struct Settings {
    token: Option<Secret>,
    tls: Option<TlsIdentity>,
    agent_metrics: AgentMetrics,
}

impl From<HttpOptions> for Settings {
    fn from(options: HttpOptions) -> Self {
        let HttpOptions { address: _, token, tls, agent_metrics } = options;
        Settings { token, tls, agent_metrics }
    }
}

impl Access {
    pub(super) fn new(settings: Settings) -> Self {
        Access(Arc::new(RwLock::new(settings)))
    }

    /// Has other settings count: those of TLS from the next connection on, the others from the next request on.
    pub(super) fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.warn();
    }

    /// Warns of what clients will object to.
    pub(super) fn warn(&self) {
        let complaint = self.read(|settings| settings.tls.as_ref()?.complaint(wall_now()));
        if let Some(complaint) = complaint {
            tracing::warn!(target: "varta::http", "{complaint}");
        }
    }

    /// Whether a request with this bearer token, or none, may read the metrics.
    pub(super) fn allows(&self, shown: Option<&[u8]>) -> bool {
        self.read(|settings| {
            settings.token.as_ref().is_none_or(|token| shown.is_some_and(|shown| token.matches(shown)))
        })
    }

    pub(super) fn agent_metrics(&self) -> AgentMetrics {
        self.read(|settings| settings.agent_metrics)
    }

    /// With what a connection is opened; `None` where it is answered in plaintext.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.read(|settings| settings.tls.as_ref().map(TlsIdentity::config))
    }

    /// When the certificate expires, in seconds of Unix time; 0 without one.
    pub(super) fn certificate_expiry(&self) -> f64 {
        self.read(|settings| settings.tls.as_ref().map_or(0.0, TlsIdentity::expiry))
    }

    /// The scheme of its URLs.
    pub(super) fn scheme(&self) -> &'static str {
        self.read(|settings| if settings.tls.is_some() { "https" } else { "http" })
    }

    fn read<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
