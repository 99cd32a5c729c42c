//! Alerts: notifies Alertmanagers and a webhook of agents in alarm.
//!
//! What is to be told is in the `book`, which is pure. The task here hands it changes of verdict, compares it
//! with the tracker now and then, keeps it in a file, and hands what comes of it to one sending task for each destination. All of
//! them are on the main thread, away from the beats.

mod alert;
mod alert_file;
mod alertmanager;
mod annotations;
mod delivery;
mod http_client;
mod lifecycle;
pub(in crate::services) mod metrics;
mod notification;
pub(in crate::services) mod notifier;
mod options;
pub(crate) mod service;
mod task;
mod url;
mod webhook;

pub(crate) use self::notification::Notification;
pub use self::options::{AlertArgs, AlertOptions, UrlText};
pub use self::url::AlertUrl;
