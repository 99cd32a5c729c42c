//! Files: opening, bounded reads, and writing so that a crash is outlived: append-only logs, atomic replacement,
//! locks.

pub(crate) mod append_log;
pub(crate) mod atomic;
pub(crate) mod bounded_read;
pub(crate) mod certificates;
pub(crate) mod coalescing_writer;
pub(crate) mod directory;
pub(crate) mod lock;
pub(crate) mod private_file;
pub(crate) mod private_json;
pub(crate) mod regular_file;
pub(crate) mod state_dir;
pub(crate) mod watch;
