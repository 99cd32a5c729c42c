//! The book of alerts: which there are, what has to be said of them, and to whom.
//!
//! It is pure. Changes of verdict, the results of sweeps and the time go in; alerts and notices come out. Two rules hold: an
//! alert fires once for each time that its subject comes to be in alarm, and all that fires ends.

mod agent_state;
mod firing;
mod group;
mod persisted;
mod reconcile;
mod resolve;
pub(in crate::services::alerts) mod state;
#[cfg(test)]
mod tests;

pub(super) use self::agent_state::Damping;
pub(super) use self::persisted::Kept;
