//! A little chance, for what must differ between processes, and in [`strict`] also for what nobody may guess or repeat.
//!
//! It is drawn where a handle is made or recovers from a fork, and never on an ordinary beat.

mod random;
#[cfg(feature = "secure-udp")]
pub(crate) mod strict;

pub(crate) use random::{random, random_id};
