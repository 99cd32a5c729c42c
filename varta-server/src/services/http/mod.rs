//! The HTTP service: `/metrics`, `/healthz` and `/readyz`.

mod access;
mod body;
mod certificate;
mod connections;
pub(in crate::services) mod credentials;
mod listener;
pub(in crate::services) mod metrics;
mod negotiation;
pub(crate) mod options;
pub(in crate::services) mod process;
pub(in crate::services) mod readers;
pub(in crate::services) mod reload;
mod routes;
mod scrapes;
pub(crate) mod service;
mod sites;
#[cfg(test)]
mod tests;
pub(in crate::services) mod tls;
mod users;

/// The connections of users of this host that wait for the HTTP service.
pub(crate) const LOCAL_CONNECTIONS: usize = 16;

pub use self::certificate::TlsIdentity;
pub use self::options::{HttpArgs, HttpOptions};
pub(crate) use self::service::EVENT_STREAM;
pub(crate) use self::sites::{Caller, Sites, problem};
pub use self::users::Users;
