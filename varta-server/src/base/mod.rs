//! What any daemon needs: time, errors, files, options, limits. Nothing here knows what a heartbeat is.

pub(crate) mod accept;
pub(crate) mod backoff;
pub(crate) mod children;
pub mod clock;
pub(crate) mod descriptor_link;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod given_sockets;
pub(crate) mod glob;
pub(crate) mod host_check;
pub(crate) mod huge_pages;
pub(crate) mod inherited;
pub(crate) mod limits;
pub(crate) mod log_limit;
pub mod logging;
pub(crate) mod options;
pub(crate) mod progress;
pub(crate) mod rate_limit;
pub(crate) mod secret;
pub(crate) mod silent_clients;
mod socket_file;
pub(crate) mod socket_files;
mod socket_path;
pub(crate) mod stdout;
pub mod time;
pub(crate) mod time_zone;
pub(crate) mod version;
pub(crate) mod visible;
pub(crate) mod worker_thread;

pub(crate) use self::glob::Glob;
pub(crate) use self::limits::EntryError;
pub(crate) use self::logging::LogFormat;
pub use self::socket_file::SocketOptions;
pub(crate) use self::socket_file::{FileAccess, SocketFile, SocketPlace};
pub(crate) use self::socket_files::SocketFiles;
