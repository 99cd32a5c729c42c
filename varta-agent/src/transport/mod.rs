//! Transports: how beats leave the process.
//!
//! A handle creates frames and decides what to do when one is lost; a transport sends 32 bytes, and
//! occasionally a control datagram.

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
