//! Heartbeats of the server itself, for who watches it: sent only after a completed turn of the tracker.
//!
//! A timer that still runs beside a tracker that hangs sends nothing. The receiver alarms when heartbeats stay
//! away, whatever has ended with the server: its process, its host, or its network.

mod device_target;
pub(in crate::services) mod metrics;
mod options;
mod peer_target;
pub(crate) mod service;
mod turns;
mod url_target;
mod watchdog_device;

pub use self::options::{BeatTo, DeviceOptions, HeartbeatArgs, HeartbeatOptions, PeerOptions, UrlOptions};
