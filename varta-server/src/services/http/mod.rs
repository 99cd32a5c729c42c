//! The HTTP service: `/metrics`, `/healthz` and `/readyz`.

mod connections;
pub(in crate::services) mod metrics;
pub(crate) mod options;
pub(crate) mod service;
#[cfg(test)]
mod tests;

pub use self::options::{HttpArgs, HttpOptions};
