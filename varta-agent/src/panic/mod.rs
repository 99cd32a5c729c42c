//! The last word of a process that panics.
//!
//! A process that dies of a panic falls silent like any other, and a server would have to wait to be sure. The hook
//! tells it at once, with a frame that no ordinary beat looks like.

mod hook;
#[cfg(feature = "secure-udp")]
mod secure;
#[cfg(feature = "udp")]
mod udp;
mod unix;

#[cfg(feature = "secure-udp")]
pub use secure::{install_panic_handler_secure_udp, install_panic_handler_secure_udp_with_master};
#[cfg(feature = "udp")]
pub use udp::install_panic_handler_udp;
pub use unix::install_panic_handler;
