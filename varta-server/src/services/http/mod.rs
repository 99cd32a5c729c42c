//! The HTTP service: `/metrics`, `/healthz` and `/readyz`.

pub(in crate::services) mod metrics;
pub(crate) mod options;
pub(crate) mod service;

pub use self::options::{HttpArgs, HttpOptions};
