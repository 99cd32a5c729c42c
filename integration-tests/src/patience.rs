//! Waiting for a condition, with a limit that no healthy run comes near.

use std::thread;
use std::time::{Duration, Instant};

/// After it a test has failed. Not a measure of speed: a machine that is busy with other things must not fail a test.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to be seen; `None` when there was nothing for [`LIMIT`].
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let give_up = Instant::now() + LIMIT;
    loop {
        let too_late = Instant::now() >= give_up;
        match look() {
            Some(found) => return Some(found),
            None if too_late => return None,
            None => thread::sleep(PAUSE),
        }
    }
}
