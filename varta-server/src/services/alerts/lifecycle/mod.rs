//! The lifecycle of alerts: which fire, which have ended, and which receivers have yet to get that.
//!
//! [`AlertState`](state) is pure. Transitions, the results of sweeps and the time go in; alerts and
//! notifications come out. Two rules hold: an alert fires once for each time that its subject comes to be in
//! alarm, and each alert that fires ends.

mod acks;
mod agent_state;
mod ending;
mod firing;
mod group;
mod persisted;
mod receivers;
mod reconcile;
mod resolve;
pub(in crate::services::alerts) mod state;
#[cfg(test)]
mod tests;

pub(super) use self::acks::{Acknowledged, PersistedAck};
pub(super) use self::agent_state::FlapDetection;
pub(super) use self::persisted::PersistedAlert;
