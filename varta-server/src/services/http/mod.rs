//! HTTP: `/metrics`, `/healthz` and `/readyz`.

pub(crate) mod metrics;
pub(crate) mod options;
pub(crate) mod service;
