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
#[cfg(test)]
mod tests;
pub(in crate::services) mod tls;
mod users;

pub use self::certificate::TlsIdentity;
pub use self::options::{HttpArgs, HttpOptions};
pub use self::users::Users;
