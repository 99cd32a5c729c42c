//! The handle that beats.
//!
//! A beat has to be so cheap and so harmless that nobody thinks twice before putting one into a loop: it reads the
//! clock once and a word of memory, encodes on the stack, and makes one system call that does not wait.

mod connect;
mod control;
mod handle;
#[cfg(feature = "test-hooks")]
mod hooks;
#[cfg(test)]
mod tests;

pub use handle::Varta;
