//! Panic hooks, which send a terminal frame.
//!
//! A process that dies of a panic becomes silent, and a server would have to wait for the deadline. The hook
//! reports the panic at once, with a frame that differs from every ordinary beat.

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
