//! The handle that sends beats.
//!
//! A beat must be cheap enough and harmless enough for any loop: it reads the clock once and one word of
//! memory, encodes on the stack, and makes one system call that does not block.

mod connect;
mod control;
mod handle;
#[cfg(feature = "test-hooks")]
mod hooks;
#[cfg(test)]
mod tests;

#[cfg(feature = "tokio")]
pub(crate) use control::lower_bits;
pub use handle::Varta;
