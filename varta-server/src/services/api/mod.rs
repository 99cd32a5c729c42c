//! The API, as docs/API.md has it: what the server knows of its agents, as JSON by HTTP. Lists are read from copies that
//! all readers share, changes from a ring that has the latest of them, and the past from the state directory: none of it
//! holds up the tracker.

mod acts;
mod badge;
mod changes;
mod directory;
mod doings;
mod history;
mod incidents;
mod list;
mod parameters;
mod routes;
mod row;
pub(crate) mod service;
mod shared;
mod stream;
mod uptime;

pub(crate) use self::shared::Sources;
