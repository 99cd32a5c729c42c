//! Waiting for a condition, with one limit that no healthy run comes near.

use std::thread;
use std::time::{Duration, Instant};

/// A test that waits longer has failed. It is no measure of speed: a machine that is busy with other work
/// must not fail a test, and no test that succeeds waits so long.
pub const LIMIT: Duration = Duration::from_secs(120);
/// The pause between two calls of a probe.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `probe` every 20 ms until it gives a value; `None` when it has given none for [`LIMIT`].
pub fn wait_for<T>(probe: impl FnMut() -> Option<T>) -> Option<T> {
    wait_for_at(PAUSE, LIMIT, probe)
}

/// Calls `probe` at another pace and for another time.
pub fn wait_for_at<T>(pause: Duration, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        // Read before the probe, so that the last call comes after the deadline however long the probe takes.
        let is_last = Instant::now() >= deadline;
        match probe() {
            Some(found) => return Some(found),
            None if is_last => return None,
            None => thread::sleep(pause),
        }
    }
}

/// Waits until `condition` holds; `what` is the condition in words.
///
/// # Panics
///
/// After [`LIMIT`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = wait_for(|| condition().then_some(()));
    assert!(holds.is_some(), "not within {LIMIT:?}: {what}");
}

/// Gives the value, or fails the test at the line of whatever called the function that calls this: a closure
/// that panics would be that place itself.
#[track_caller]
pub(crate) fn or_fail<T>(outcome: Result<T, String>) -> T {
    match outcome {
        Ok(value) => value,
        Err(failure) => panic!("{failure}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    #[test]
    fn the_first_value_of_a_probe_is_the_result() {
        let mut calls = 0;
        let found = wait_for(|| {
            calls += 1;
            (calls >= 3).then_some(calls)
        });
        assert_eq!((found, calls), (Some(3), 3));
    }

    #[test]
    fn a_probe_is_called_at_least_once_however_short_the_limit_is() {
        assert_eq!(wait_for_at(NO_TIME, NO_TIME, || Some(1)), Some(1));
        assert_eq!(wait_for_at(NO_TIME, NO_TIME, || None::<u8>), None);
    }
}
