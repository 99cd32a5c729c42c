//! What the service manager is told: that the server is ready, reloads and stops, how its agents are, and that
//! it still works.
//!
//! By the protocol of sd_notify(3), for `Type=notify-reload` and `WatchdogSec=`. It has no options: the service
//! manager asks for it in the environment, and without `NOTIFY_SOCKET` nothing of it runs.

pub(in crate::services) mod metrics;
mod notifier;
pub(crate) mod service;
mod watchdog;
