//! The way that beats take out of the process.
//!
//! A handle knows how to make a frame and what to do when one is lost; a transport knows how to send 32 bytes, and now
//! and then a control datagram.

mod beat_transport;
#[cfg(all(feature = "shm", target_os = "linux"))]
mod page;
#[cfg(feature = "secure-udp")]
pub(crate) mod secure;
#[cfg(all(feature = "shm", target_os = "linux"))]
mod shm;
#[cfg(feature = "udp")]
pub(crate) mod udp;
pub(crate) mod uds;

pub use beat_transport::BeatTransport;
#[cfg(feature = "secure-udp")]
pub use secure::SecureUdpTransport;
#[cfg(all(feature = "shm", target_os = "linux"))]
pub use shm::ShmTransport;
#[cfg(feature = "udp")]
pub use udp::UdpTransport;
pub use uds::UdsTransport;
