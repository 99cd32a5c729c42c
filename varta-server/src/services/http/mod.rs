//! The HTTP service: `/metrics`, `/healthz` and `/readyz`.

mod body;
mod connections;
pub(in crate::services) mod metrics;
mod negotiation;
pub(crate) mod options;
pub(in crate::services) mod process;
pub(crate) mod service;
#[cfg(test)]
mod tests;

pub use self::options::{HttpArgs, HttpOptions};
