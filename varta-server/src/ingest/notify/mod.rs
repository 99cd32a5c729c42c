//! Notifications as in sd_notify(3): services that were written for systemd are agents without a line of code.

mod address;
mod bridge;
mod kin;
mod listener;
mod receive;
mod service;
mod services;

pub use self::address::NotifyAddress;
pub(super) use self::listener::NotifyListener;
pub(crate) use self::services::{FAMILIES, NotifyServices};
