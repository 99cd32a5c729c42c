//! Explains refusals of the Unix socket in the log: whose datagrams are refused, why, and what to do.
//!
//! A refused sender sees its datagrams sent, so that nothing but the log of this server tells anybody. Each
//! sender and reason is explained once in a while, and all of them together no more often than a log can
//! bear, because any process that may open the socket can cause refusals.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::base::rate_limit::{RateLimit, Usage};
use crate::base::time::MonoTime;
use crate::domain::outcome::FrameOutcome;
use crate::ingest::recvmmsg::{Credentials, Datagram};

/// How long an explanation holds: after that the same sender is explained again.
const HOLDS_FOR: Duration = Duration::from_secs(3_600);
/// The most explanations within [`WITHIN`].
const EXPLANATIONS: NonZeroU32 = NonZeroU32::new(10).expect("more than zero");
const WITHIN: Duration = Duration::from_secs(60);
/// The most remembered explanations: at most so many fit into the time for which they hold.
const MAX_EXPLAINED: usize = 1_024;
/// The bytes of the pid in a frame.
const PID: std::ops::Range<usize> = 4..8;

/// The explanations given so far.
#[derive(Debug)]
pub(super) struct RefusalLog {
    explained: HashMap<Refusal, MonoTime>,
    limit: RateLimit,
    usage: Usage,
    /// Refused datagrams that were not explained since the last explanation, because there were too many.
    unexplained: u64,
}

/// A sender and the reason for which it is refused, by the row of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Refusal {
    uid: u32,
    pid: u32,
    reason: usize,
}

/// What the log says of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) sender: Option<Credentials>,
    pub(super) reason: &'static str,
    text: String,
    /// Refused datagrams before this one that were not explained.
    unexplained: u64,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        RefusalLog {
            explained: HashMap::new(),
            limit: RateLimit::within(EXPLANATIONS, WITHIN),
            usage: Usage::default(),
            unexplained: 0,
        }
    }

    /// Notes a refused datagram. `Some` if the refusal is to be explained now.
    pub(super) fn note(
        &mut self,
        datagram: &Datagram<'_>,
        outcome: FrameOutcome,
        now: MonoTime,
    ) -> Option<Explanation> {
        let (uid, pid) = datagram.credentials.map_or((u32::MAX, 0), |sender| (sender.uid, sender.pid));
        let refusal = Refusal { uid, pid, reason: outcome.index() };
        if self.explained.get(&refusal).is_some_and(|at| now.since(*at) < HOLDS_FOR) {
            return None;
        }
        if self.explained.len() >= MAX_EXPLAINED {
            self.explained.retain(|_, at| now.since(*at) < HOLDS_FOR);
        }
        if self.explained.len() >= MAX_EXPLAINED || !self.limit.try_take(&mut self.usage, now) {
            self.unexplained += 1;
            return None;
        }
        self.explained.insert(refusal, now);
        let reason = FrameOutcome::labels()[outcome.index()];
        let unexplained = std::mem::take(&mut self.unexplained);
        Some(Explanation {
            sender: datagram.credentials,
            reason,
            text: explain(datagram, outcome),
            unexplained,
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("datagrams ")?;
        match self.sender {
            Some(Credentials { pid: 0, uid, .. }) => write!(f, "of a process of uid {uid} "),
            Some(Credentials { pid, uid, .. }) => write!(f, "of process {pid} of uid {uid} "),
            None => Ok(()),
        }?;
        write!(f, "are refused: {}", self.text)?;
        match self.unexplained {
            0 => Ok(()),
            count => {
                write!(f, " ({count} datagrams of other senders were refused too, and nothing was said)")
            }
        }
    }
}

/// What is wrong with a datagram, and what to do.
pub(super) fn explain(datagram: &Datagram<'_>, outcome: FrameOutcome) -> String {
    match (outcome, datagram.credentials) {
        (FrameOutcome::UidRefused, Some(Credentials { uid, gid, .. })) => format!(
            "neither its user nor a group of it is allowed; to take its beats, start the server with --allow-uid {uid}, or \
             with --allow-gid and its group ({gid} is its primary one); to keep it off the socket, see --socket-mode"
        ),
        (FrameOutcome::Unattested, Some(_)) => {
            "it lives in a PID namespace that this server cannot see; run the server in \
             the PID namespace of the host (--pid=host, hostPID) or in the one of the agent"
                .to_owned()
        }
        (FrameOutcome::Unattested, None) => "the kernel does not say who sent them".to_owned(),
        (FrameOutcome::PidMismatch, _) => {
            let named = datagram.payload.get(PID).and_then(|pid| pid.try_into().ok()).map(u32::from_le_bytes);
            let named = named.map_or_else(|| "another pid".to_owned(), |pid| format!("pid {pid}"));
            format!(
                "its frames carry {named}, which it does not have; a process that was forked must ask for its own pid, or \
                 connect after the fork"
            )
        }
        (FrameOutcome::Ancillary, _) => {
            "file descriptors or other ancillary data came along, which no beat has; only the \
             offer of a page of memory may pass one descriptor"
                .to_owned()
        }
        (FrameOutcome::Malformed(error), _) => {
            format!("{error}; see whether its client speaks version {} of the protocol", varta_proto::VERSION)
        }
        (other, _) => FrameOutcome::labels()[other.index()].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use varta_proto::{DecodeError, Frame, Status};

    use super::*;

    const SENDER: Credentials = Credentials { pid: 4242, uid: 1000, gid: 100 };

    fn datagram(payload: &[u8], credentials: Option<Credentials>) -> Datagram<'_> {
        Datagram {
            payload,
            truncated: false,
            extra_ancillary: false,
            has_descriptor: false,
            credentials,
            source: None,
        }
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_secs(seconds)
    }

    fn note(log: &mut RefusalLog, pid: u32, outcome: FrameOutcome, now: MonoTime) -> Option<String> {
        let sender = Some(Credentials { pid, ..SENDER });
        log.note(&datagram(&[], sender), outcome, now).map(|explanation| explanation.to_string())
    }

    #[test]
    fn every_reason_says_who_it_is_and_what_to_do() {
        let frame = Frame::new(Status::Ok, 7, 1, 1, 0).to_bytes();
        let invisible = Some(Credentials { pid: 0, ..SENDER });
        let table = [
            (FrameOutcome::UidRefused, Some(SENDER), "process 4242 of uid 1000", "--allow-uid 1000"),
            (FrameOutcome::UidRefused, Some(SENDER), "process 4242 of uid 1000", "--allow-gid"),
            (FrameOutcome::PidMismatch, Some(SENDER), "carry pid 7", "connect after the fork"),
            (FrameOutcome::Unattested, invisible, "a process of uid 1000", "--pid=host"),
            (FrameOutcome::Unattested, None, "datagrams are refused", "does not say who"),
            (FrameOutcome::Ancillary, Some(SENDER), "process 4242", "file descriptors"),
            (
                FrameOutcome::Malformed(DecodeError::BadVersion { actual: 1 }),
                Some(SENDER),
                "unknown version 1",
                "speaks version 2",
            ),
        ];
        for (outcome, credentials, who, what) in table {
            let explanation = RefusalLog::new().note(&datagram(&frame, credentials), outcome, at(1)).unwrap();
            let text = explanation.to_string();
            assert!(text.contains(who) && text.contains(what), "{text}");
        }
    }

    #[test]
    fn each_sender_and_reason_is_explained_once_an_hour() {
        let mut log = RefusalLog::new();
        assert!(note(&mut log, 2, FrameOutcome::UidRefused, at(1)).is_some());
        assert!((1..3_600).all(|second| note(&mut log, 2, FrameOutcome::UidRefused, at(second)).is_none()));
        assert!(note(&mut log, 2, FrameOutcome::Ancillary, at(100)).is_some(), "another reason");
        assert!(note(&mut log, 3, FrameOutcome::UidRefused, at(100)).is_some(), "another process");
        assert!(note(&mut log, 2, FrameOutcome::UidRefused, at(3_601)).is_some());
    }

    #[test]
    fn a_flood_of_senders_writes_no_flood_of_lines_and_what_was_not_explained_is_counted() {
        let mut log = RefusalLog::new();
        let lines =
            (2..50_000).filter_map(|pid| note(&mut log, pid, FrameOutcome::UidRefused, at(1))).count();
        assert_eq!(lines, 10);
        let next = note(&mut log, 1_000_000, FrameOutcome::UidRefused, at(120)).unwrap();
        assert!(next.contains("49988 datagrams of other senders"), "{next}");
        assert!(
            !note(&mut log, 1_000_001, FrameOutcome::UidRefused, at(120)).unwrap().contains("other senders")
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut log = RefusalLog::new();
        for pid in 2..100_000 {
            note(&mut log, pid, FrameOutcome::UidRefused, at(u64::from(pid)));
        }
        assert!(log.explained.len() <= MAX_EXPLAINED);
    }
}
