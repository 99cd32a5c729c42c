//! Notifications to the service manager: that the server is ready, reloads and stops, a status line with its
//! agents, and keep-alives; and descriptors of sockets that it keeps while the server is restarted.
//!
//! By the protocol of sd_notify(3), for `Type=notify-reload` and `WatchdogSec=`. It has no options: the service
//! manager asks for it in the environment, and without `NOTIFY_SOCKET` nothing of it runs.

pub(in crate::services) mod metrics;
mod notifier;
pub(crate) mod service;
mod store;
mod watchdog;
