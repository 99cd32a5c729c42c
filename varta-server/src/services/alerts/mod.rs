//! Alerts: notifies Alertmanagers, a webhook and people by mail of agents in alarm.
//!
//! `lifecycle` decides which alerts fire and resolve, and is pure. `task` hands transitions to it, reconciles
//! it with the tracker, keeps it in a file, and passes alerts on to one sending task for each receiver. All
//! of them run on the main thread, away from the beats.

mod alert;
mod alert_file;
mod alertmanager;
mod annotations;
mod board;
mod courier;
mod delivery;
pub(in crate::services) mod http_client;
mod lanes;
mod lifecycle;
mod mail;
pub(in crate::services) mod metrics;
mod notification;
pub(in crate::services) mod notifier;
mod options;
mod problem;
mod receiver_clock;
mod saving;
mod senders;
pub(crate) mod service;
mod settling;
mod targets;
mod task;
mod templates;
mod url;
mod url_text;
mod webhook;

pub(crate) use self::board::{AlertBoard, FiringAlert};
pub use self::mail::{Login, MailAddress, MailOptions, Relay};
pub(crate) use self::notification::Notification;
pub use self::options::{AlertArgs, AlertOptions};
pub use self::templates::{Template, TemplateName};
pub use self::url::AlertUrl;
pub use self::url_text::UrlText;
pub use self::webhook::WebhookSignature;
