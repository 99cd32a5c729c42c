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

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Opens `/dev/null`, to read from or to write to.
///
/// # Errors
///
/// There is none, as in a container without devices, or no descriptor left.
pub(crate) fn device_null() -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?)
}
