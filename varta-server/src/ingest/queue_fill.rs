//! Notices from what is read that the queue of a Unix socket was full, and logs it.
//!
//! The kernel refuses a datagram for a full queue and counts nothing, so only the number of datagrams that
//! wait tells. As many as the queue holds, read before the queue was empty once, mean that it was full, or
//! that the server read no faster than senders sent.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::ingest::recvmmsg::Datagram;

/// The least time between two log lines about a full queue.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// The datagrams of one socket since its queue was empty.
#[derive(Debug)]
pub(super) struct QueueFill {
    path: PathBuf,
    /// The datagrams that the queue holds; `None` where that is not known.
    length: Option<usize>,
    since_empty: usize,
    /// When the next full queue may be logged, and how many were not logged.
    logs_from: MonoTime,
    unlogged: u64,
}

impl QueueFill {
    pub(super) fn new(path: PathBuf, length: Option<usize>) -> Self {
        QueueFill { path, length, since_empty: 0, logs_from: MonoTime::START, unlogged: 0 }
    }

    pub(super) fn length(&self) -> Option<usize> {
        self.length
    }

    /// Notes a batch of `received` datagrams. Whether the queue was full: senders were refused or were about
    /// to be. `is_empty` means that the batch has emptied the queue.
    pub(super) fn note(&mut self, received: usize, is_empty: bool) -> bool {
        self.since_empty = self.since_empty.saturating_add(received);
        let was_full = self.length.is_some_and(|length| self.since_empty >= length);
        if was_full || is_empty {
            self.since_empty = 0;
        }
        was_full
    }

    /// Notes that nothing waits.
    pub(super) fn note_empty(&mut self) {
        self.since_empty = 0;
    }

    /// The log line about a full queue, from which these datagrams were the last that were read; `None` if
    /// there was one a short while ago.
    pub(super) fn explain<'d>(
        &mut self,
        datagrams: impl Iterator<Item = Datagram<'d>>,
        now: MonoTime,
    ) -> Option<String> {
        if now < self.logs_from {
            self.unlogged += 1;
            return None;
        }
        self.logs_from = now + LOGGED_EVERY;
        let before = match std::mem::take(&mut self.unlogged) {
            0 => String::new(),
            count => format!(" ({count} times more since this was last said)"),
        };
        let mut senders: HashMap<(u32, u32), usize> = HashMap::new();
        let mut all = 0;
        for sender in datagrams.filter_map(|datagram| datagram.credentials) {
            *senders.entry((sender.pid, sender.uid)).or_default() += 1;
            all += 1;
        }
        let most = senders.into_iter().max_by_key(|(sender, count)| (*count, *sender));
        let most = most.map_or_else(String::new, |((pid, uid), count)| {
            format!(" Of the last {all} datagrams {count} came from process {pid} of uid {uid}.")
        });
        Some(format!(
            "the queue of {}, which holds {} datagrams, was full{before}: the kernel refused beats, and nobody knows whose. \
             Agents of this host that are silent are called unknown and not stalled until there has been room for their \
             stall timeout.{most} Raise --socket-queue (it takes CAP_SYS_ADMIN) or net.unix.max_dgram_qlen, let agents beat \
             at different moments, or keep out who floods the socket (--socket-mode)",
            self.path.display(),
            self.length.unwrap_or(0),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::recvmmsg::Credentials;

    fn fill(length: usize) -> QueueFill {
        QueueFill::new("/run/varta.sock".into(), Some(length))
    }

    #[test]
    fn as_many_as_the_queue_holds_mean_that_it_was_full() {
        let mut short = fill(11);
        assert!(!short.note(10, true));
        assert!(!short.note(10, true), "it was empty in between");
        assert!(short.note(11, true) && short.note(12, true));
    }

    #[test]
    fn a_queue_that_is_longer_than_a_batch_is_full_when_as_many_are_read_before_it_is_empty() {
        let mut long = fill(200);
        assert!(!long.note(64, false) && !long.note(64, false) && !long.note(64, false));
        assert!(long.note(8, true));
        assert!(!long.note(64, false) && !long.note(64, false) && !long.note(64, false));
        long.note_empty();
        assert!(!long.note(64, true));
        let full: Vec<_> = (0..12).map(|_| long.note(64, false)).filter(|full| *full).collect();
        assert_eq!(full.len(), 3, "while it is never empty, each time that so many were read");
    }

    #[test]
    fn a_queue_of_unknown_length_is_never_called_full() {
        let mut unknown = QueueFill::new("/run/varta.sock".into(), None);
        assert!((0..1_000).all(|_| !unknown.note(64, false)));
    }

    #[test]
    fn the_line_names_whoever_sends_most_and_comes_once_a_minute() {
        let mut fill = fill(11);
        let datagram = |pid| Datagram {
            payload: &[],
            truncated: false,
            extra_ancillary: false,
            has_descriptor: false,
            credentials: Some(Credentials { pid, uid: 1000, gid: 100 }),
            source: None,
        };
        let at = MonoTime::from_secs;
        let line = fill.explain([7, 8, 8, 8].into_iter().map(datagram), at(1)).unwrap();
        assert!(line.contains("/run/varta.sock, which holds 11 datagrams, was full: "), "{line}");
        assert!(line.contains("Of the last 4 datagrams 3 came from process 8 of uid 1000."), "{line}");
        assert!((2..61).all(|second| fill.explain([].into_iter(), at(second)).is_none()));
        let line = fill.explain([].into_iter(), at(61)).unwrap();
        assert!(line.contains("was full (59 times more since this was last said)"), "{line}");
    }
}
