//! File locks, which keep two servers from using the same files.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::Duration;

/// The number of attempts to lock, and the pause between them: a second in all. A server that is ending, or a
/// child process between fork and exec, may hold a lock for a moment longer.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Locks a file until it is closed, however this process ends.
///
/// # Errors
///
/// [`TryLockError::WouldBlock`] when another process holds the lock; else the error of the kernel.
pub(crate) fn try_lock(file: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    file.try_lock()
}
