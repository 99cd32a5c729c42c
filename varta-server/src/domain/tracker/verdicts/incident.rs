use std::num::NonZeroU64;

use crate::base::time::MonoTime;

/// What a change of verdict is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Which one it is: they are numbered from 1 on since the start of the server.
    pub number: NonZeroU64,
    /// How many agents it has so far, this one included and those that came before it was an incident.
    pub agents: u32,
    /// Until when more may become a part of it that have been given a second chance.
    pub open_until: MonoTime,
}
