//! Files that outlive a crash: append-only logs, atomic replacement, locks, bounded reads.

pub(crate) mod append_log;
pub(crate) mod atomic;
pub(crate) mod bounded_read;
pub(crate) mod coalescing_writer;
pub(crate) mod directory;
pub(crate) mod lock;
pub(crate) mod private_json;
pub(crate) mod state_dir;
