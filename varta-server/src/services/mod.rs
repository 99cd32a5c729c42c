//! The registration of all capabilities: one folder each, one block here each.

pub(crate) mod alerts;
pub mod audit;
pub(crate) mod context;
pub mod events;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod maintenance;
pub mod recording;
pub mod recovery;
pub(crate) mod state;

use crate::metrics::family::Family;

/// The families of metrics of each service.
pub(crate) const fn families() -> &'static [&'static [Family]] {
    &[
        state::metrics::FAMILIES,
        maintenance::metrics::FAMILIES,
        audit::metrics::FAMILIES,
        alerts::metrics::FAMILIES,
        recovery::metrics::FAMILIES,
        events::metrics::FAMILIES,
        recording::metrics::FAMILIES,
        http::metrics::FAMILIES,
    ]
}
