//! Locks by which two servers keep out of each other's files.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::Duration;

/// How often, and how long apart, a lock is tried before giving up: a second in all. A server that is just ending, or a
/// process that is just being started by somebody, may hold it for a moment longer.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Locks a file until it is closed, by whatever end this process comes to.
///
/// # Errors
///
/// [`TryLockError::WouldBlock`] when another process has it; else what the kernel says.
pub(crate) fn try_lock(file: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    file.try_lock()
}
