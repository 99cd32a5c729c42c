//! Retries of a datagram that nothing follows, when the server's queue is full.
//!
//! A lost beat is followed by another. Nothing follows a terminal frame or a Goodbye, and a server that does
//! not receive it raises an alert.

use std::time::Duration;

/// The delays before each further attempt when the queue is full: 15 ms in all, so that a server that does
/// not read cannot delay the end of a process.
pub(crate) const RETRY_DELAYS: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(4), Duration::from_millis(8)];

/// Sends, and while the queue is full waits and sends again, once for each of [`RETRY_DELAYS`].
pub(crate) fn retry_while_full<R>(
    mut wait: impl FnMut(Duration),
    is_full: impl Fn(&R) -> bool,
    mut send: impl FnMut() -> R,
) -> R {
    for pause in RETRY_DELAYS {
        let sent = send();
        if !is_full(&sent) {
            return sent;
        }
        wait(pause);
    }
    send()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_tried_again_for_15_ms_in_all() {
        let (mut waited, mut attempts) = (Duration::ZERO, 0);
        let full = retry_while_full(
            |pause| waited += pause,
            |full| *full,
            || {
                attempts += 1;
                true
            },
        );
        assert!(full);
        assert_eq!((attempts, waited), (5, Duration::from_millis(15)));
    }

    #[test]
    fn a_queue_with_room_again_takes_the_datagram_once() {
        let mut answers = ["full", "full", "taken"].into_iter();
        assert_eq!(retry_while_full(|_| {}, |answer| *answer == "full", || answers.next().unwrap()), "taken");
        assert!(answers.next().is_none());
    }
}
