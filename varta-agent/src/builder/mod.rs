//! Creation of handles: everything about a beat that can fail or allocate happens here, once.

mod custom_transport;
#[cfg(feature = "secure-udp")]
mod secure;
mod settings;
#[cfg(all(feature = "shm", target_os = "linux"))]
mod shm;
#[cfg(feature = "udp")]
mod udp;
mod unix_socket;

pub use custom_transport::CustomTransport;
#[cfg(feature = "secure-udp")]
pub use secure::SecureUdpServer;
pub use settings::{Builder, UnixSocket};
#[cfg(all(feature = "shm", target_os = "linux"))]
pub use shm::SharedMemory;
#[cfg(feature = "udp")]
pub use udp::UdpServer;
