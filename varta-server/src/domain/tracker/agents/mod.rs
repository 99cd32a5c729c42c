//! The state of each agent, and the tables by which an agent is found.

pub(in crate::domain::tracker) mod agent;
pub(in crate::domain::tracker) mod expected;
pub(in crate::domain::tracker) mod index;
pub(in crate::domain::tracker) mod job_state;
pub(in crate::domain::tracker) mod jobs;
pub(in crate::domain::tracker) mod named;
pub(in crate::domain::tracker) mod names;
pub(in crate::domain::tracker) mod origins;
pub(in crate::domain::tracker) mod pending_hellos;
pub(in crate::domain::tracker) mod places;
pub(in crate::domain::tracker) mod port_history;
pub(in crate::domain::tracker) mod progress;
pub(in crate::domain::tracker) mod request;
pub(in crate::domain::tracker) mod session;
pub(in crate::domain::tracker) mod slot_flags;
pub(in crate::domain::tracker) mod snapshot;
pub(in crate::domain::tracker) mod status;
pub(in crate::domain::tracker) mod table;
pub(in crate::domain::tracker) mod view;
