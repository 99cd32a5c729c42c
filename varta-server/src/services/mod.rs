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
