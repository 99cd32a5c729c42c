//! What may change while the HTTP server runs: over what it answers, who may read the metrics, and which rows they
//! get.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use rustls::ServerConfig;

use crate::base::clock::wall_now;
use crate::base::secret::Secret;
use crate::metrics::agent_rows::AgentMetrics;
use crate::services::http::certificate::TlsIdentity;
use crate::services::http::credentials::{Answer, Credentials, PasswordChecks};
use crate::services::http::options::HttpOptions;
use crate::services::http::users::Users;

/// The settings at present. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: RwLock<Settings>,
    /// Of all passwords, also of those that were read again.
    checks: PasswordChecks,
}

/// What the options say.
#[derive(Debug)]
pub(super) struct Settings {
    token: Option<Secret>,
    api_token: Option<Secret>,
    users: Option<Arc<Users>>,
    tls: Option<TlsIdentity>,
    agent_metrics: AgentMetrics,
}

impl From<HttpOptions> for Settings {
    fn from(options: HttpOptions) -> Self {
        let HttpOptions { address: _, token, api_token, users, tls, agent_metrics } = options;
        Settings { token, api_token, users: users.map(Arc::new), tls, agent_metrics }
    }
}

impl Access {
    pub(super) fn new(settings: Settings) -> Self {
        Access(Arc::new(Inner { settings: RwLock::new(settings), checks: PasswordChecks::default() }))
    }

    /// Has other settings count: those of TLS from the next connection on, the others from the next request on.
    pub(super) fn set(&self, settings: Settings) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.warn();
    }

    /// Warns of what clients will object to.
    pub(super) fn warn(&self) {
        let complaint = self.read(|settings| settings.tls.as_ref()?.complaint(wall_now()));
        if let Some(complaint) = complaint {
            tracing::warn!(target: "varta::http", "{complaint}");
        }
    }

    /// Whether a request with these headers, of a client with this address, may read the metrics. It may if nothing is
    /// required, or if it shows the token, or the name and the password of a user.
    pub(super) async fn check(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Answer {
        let credentials = Credentials::of(headers);
        let users = match self.read(|settings| settings.check(&credentials)) {
            Ok(answer) => return answer,
            Err(users) => users,
        };
        match credentials {
            Credentials::Basic(pair) => self.0.checks.check(users, pair, peer).await,
            Credentials::None | Credentials::Bearer(_) | Credentials::Other => Answer::Wrong,
        }
    }

    /// Whether a request with these headers may change something.
    pub(super) fn may_act(&self, headers: &HeaderMap) -> bool {
        let Credentials::Bearer(shown) = Credentials::of(headers) else { return false };
        self.read(|settings| settings.api_token.as_ref().is_some_and(|token| token.matches(&shown)))
    }

    /// Whether who reads need not show anything.
    pub(super) fn is_open(&self) -> bool {
        self.read(Settings::is_open)
    }

    /// The schemes by which a client may show who it is, as in the header `WWW-Authenticate`.
    pub(super) fn challenges(&self) -> impl Iterator<Item = &'static str> {
        let [token, users] = self.read(|settings| [settings.token.is_some(), settings.users.is_some()]);
        let bearer = token.then_some("Bearer");
        bearer.into_iter().chain(users.then_some("Basic realm=\"varta\", charset=\"UTF-8\""))
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
        read(&self.0.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Settings {
    const fn is_open(&self) -> bool {
        self.token.is_none() && self.users.is_none()
    }

    /// What can be said without a check of a password, or the users of whom one may have it.
    fn check(&self, credentials: &Credentials) -> Result<Answer, Arc<Users>> {
        if self.is_open() {
            return Ok(Answer::Allowed);
        }
        match (credentials, &self.token, &self.users) {
            (Credentials::None, ..) => Ok(Answer::Missing),
            (Credentials::Bearer(shown), Some(token), _) if token.matches(shown) => Ok(Answer::Allowed),
            (Credentials::Bearer(shown), ..)
                if self.api_token.as_ref().is_some_and(|token| token.matches(shown)) =>
            {
                Ok(Answer::Allowed)
            }
            (Credentials::Basic(_), _, Some(users)) => Err(Arc::clone(users)),
            (Credentials::Bearer(_) | Credentials::Basic(_) | Credentials::Other, ..) => Ok(Answer::Wrong),
        }
    }
}
