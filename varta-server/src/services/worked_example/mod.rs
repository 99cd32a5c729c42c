//! The example of CONTRIBUTING.md: a capability that counts the transitions of one agent.
//!
//! Compiled for tests only. `services/mod.rs` has its `mod` line and its families; the server has none of its options.

pub(in crate::services) mod metrics;
mod options;
pub(crate) mod service;
#[cfg(test)]
mod tests;

pub use self::options::{WorkedExampleArgs, WorkedExampleOptions};
