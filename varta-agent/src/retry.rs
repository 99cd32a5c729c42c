//! A little patience with a full queue, for a word that is the last.
//!
//! A beat that is lost is followed by another. After a terminal frame or a Goodbye there is none, and a server that never
//! got it raises an alarm.

use std::time::Duration;

/// How long to wait before each further attempt to get into a full queue: 15 ms in all, so that a server that does not
/// read cannot hold up the end of a process.
pub(crate) const RETRY_DELAYS: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(4), Duration::from_millis(8)];

/// Sends, and as long as the queue is full waits and sends again until [`RETRY_DELAYS`] is at an end.
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
    fn a_queue_with_room_again_takes_the_word_once() {
        let mut answers = ["full", "full", "taken"].into_iter();
        assert_eq!(retry_while_full(|_| {}, |answer| *answer == "full", || answers.next().unwrap()), "taken");
        assert!(answers.next().is_none());
    }
}
