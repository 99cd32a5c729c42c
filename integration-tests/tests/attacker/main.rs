//! An attacker on the network that reads every datagram and sends any: each hostile datagram is refused for
//! the right reason and counted under it, and no other agent is affected.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod floods;
mod forgeries;
mod keys;
mod replays;
mod world;
