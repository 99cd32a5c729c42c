//! Ingest: from sockets and shared memory pages to batches of beats for the engine. Nothing here knows
//! agents.

mod admission;
pub(crate) mod batch;
mod check;
mod endpoint;
mod fd_reaper;
pub(crate) mod gate;
mod held_socket;
pub(crate) mod kernel_drops;
mod kernel_queues;
mod keyring;
pub(crate) mod listener;
pub(crate) mod listeners;
mod long_queue;
mod message;
pub(crate) mod metrics;
mod namespaces;
mod notify;
pub(crate) mod options;
pub(crate) mod probes;
mod queue_fill;
mod queue_probe;
mod readiness;
mod receive_failures;
mod recvmmsg;
mod refusals;
mod replay;
mod sender_pidfds;
mod senders;
pub(crate) mod shm;
mod socket_access;
mod socket_keeper;
pub(crate) mod socket_place;
mod udp;
mod unix;

pub use self::keyring::KeyFiles;
pub(crate) use self::keyring::{Keyring, StagedKeys};
pub(crate) use self::notify::FAMILIES as NOTIFY_FAMILIES;
pub use self::notify::NotifyAddress;
pub use self::options::{IngestArgs, IngestOptions, NotifySocket};
pub(crate) use self::probes::Probes;
pub(crate) use self::replay::persisted::PersistedWindow;
pub use self::senders::AllowedSenders;
pub(crate) use self::shm::ShmPages;
pub(crate) use self::udp::Options as UdpOptions;
