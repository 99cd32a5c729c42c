//! Who follows a running server in a terminal or script: its HTTP API by the control socket, the changes as they come
//! (`varta-server events`), and the wait for a state (`varta-server watch`).

pub(crate) mod client;
mod command;
mod events;
pub(crate) mod follower;
pub(crate) mod stream;
#[cfg(test)]
mod testing;
mod watch;
mod watched;

pub use self::command::FollowTask;
pub use self::events::ChangesArgs;
pub use self::watch::{State, WatchArgs};
