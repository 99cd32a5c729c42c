//! Random numbers: unique in [`random()`], unpredictable in [`strict`].
//!
//! They are drawn when a handle is created or recovers from a fork, and never on an ordinary beat.

mod random;
#[cfg(feature = "secure-udp")]
pub(crate) mod strict;

pub(crate) use random::{random, random_id};
