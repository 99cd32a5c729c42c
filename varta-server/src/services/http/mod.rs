//! HTTP: `/metrics`, `/healthz` and `/readyz`.

mod metrics;
pub(crate) mod options;
pub(crate) mod service;

pub use self::options::{HttpArgs, HttpOptions};
