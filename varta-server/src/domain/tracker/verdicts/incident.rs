//! The incident that a transition is part of: many agents of one origin that fall at once.

use std::num::NonZeroU64;

use crate::base::time::MonoTime;

/// The incident that a transition is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The incident's number, from 1 on since the start of the server.
    pub number: NonZeroU64,
    /// The number of agents in it so far, with this one and those that fell before it was an incident.
    pub agents: u32,
    /// Until when agents that are in grace may become part of it.
    pub open_until: MonoTime,
}
