//! The outcome of a datagram: accepted, or refused for exactly one reason.
//!
//! Every datagram that is read ends in exactly one [`FrameOutcome`], and each outcome is one row of
//! `varta_frames_total`, so that the counts add up to the number of datagrams.

use varta_proto::DecodeError;

/// The outcome of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameOutcome {
    /// An accepted beat, which moved its agent's deadline.
    Accepted,
    /// Not a frame; the error is the rule that it breaks.
    Malformed(DecodeError),
    /// The datagram carries file descriptors or other ancillary data that no message has. Nothing of it is
    /// kept.
    Ancillary,
    /// The kernel did not attest the sender.
    Unattested,
    /// The pid in the frame is not that of the process that sent it.
    PidMismatch,
    /// The sender's user and group are not among those allowed.
    UidRefused,
    /// A repetition of the newest frame of a session.
    Duplicate,
    /// A frame older than the newest of its session.
    OutOfOrder,
    /// Beyond the rate limit of one agent. The beat is not counted, and still proves that its agent is alive.
    RateLimitedAgent,
    /// Beyond the rate limit of all agents together; otherwise the same.
    RateLimitedGlobal,
    /// From a new agent for which the tracker has no room.
    Capacity,
    /// From a new agent beyond those that one address, or all together, may add over plaintext UDP, or beyond
    /// those that may share address and pid.
    SourceLimit,
    /// No key opens the datagram: it was sealed with another key, or changed on the way.
    DecryptFailed,
    /// The datagram opens, and is not newer than those before it under the same nonce prefix.
    Replayed,
    /// The datagram opens, and starts a session for which the replay table has no room.
    ReplayTableFull,
    /// A message of sd_notify(3) of which it is not known for which service it speaks.
    Unattributed,
    /// A report about a name that belongs to another user.
    NameTaken,
    /// A report that declares a job whose schedule makes no sense.
    ScheduleRefused,
}

impl FrameOutcome {
    /// The number of outcomes; each kind of malformed frame counts as one.
    pub const COUNT: usize = 17 + DecodeError::KINDS.len();

    /// The outcome's row, below [`FrameOutcome::COUNT`].
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            FrameOutcome::Accepted => 0,
            FrameOutcome::Ancillary => 1,
            FrameOutcome::Unattested => 2,
            FrameOutcome::PidMismatch => 3,
            FrameOutcome::UidRefused => 4,
            FrameOutcome::Duplicate => 5,
            FrameOutcome::OutOfOrder => 6,
            FrameOutcome::RateLimitedAgent => 7,
            FrameOutcome::RateLimitedGlobal => 8,
            FrameOutcome::Capacity => 9,
            FrameOutcome::SourceLimit => 10,
            FrameOutcome::DecryptFailed => 11,
            FrameOutcome::Replayed => 12,
            FrameOutcome::ReplayTableFull => 13,
            FrameOutcome::Unattributed => 14,
            FrameOutcome::NameTaken => 15,
            FrameOutcome::ScheduleRefused => 16,
            FrameOutcome::Malformed(error) => 17 + error.index(),
        }
    }

    /// The label values, by [`FrameOutcome::index`].
    #[must_use]
    pub fn labels() -> [&'static str; FrameOutcome::COUNT] {
        const OURS: [&str; 17] = [
            "accepted",
            "ancillary",
            "unattested",
            "pid_mismatch",
            "uid_refused",
            "duplicate",
            "out_of_order",
            "rate_limited_per_pid",
            "rate_limited_global",
            "capacity",
            "source_limit",
            "decrypt_failed",
            "replayed",
            "replay_table_full",
            "unattributed",
            "name_taken",
            "schedule_refused",
        ];
        std::array::from_fn(|index| match index.checked_sub(OURS.len()) {
            None => OURS[index],
            Some(kind) => DecodeError::KINDS[kind],
        })
    }
}

/// The number of datagrams with each outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeCounts([u64; FrameOutcome::COUNT]);

impl Default for OutcomeCounts {
    fn default() -> Self {
        OutcomeCounts([0; FrameOutcome::COUNT])
    }
}

impl OutcomeCounts {
    /// Counts one datagram.
    #[inline]
    pub fn count(&mut self, outcome: FrameOutcome) {
        self.0[outcome.index()] += 1;
    }

    /// Adds `count` to a row, by [`FrameOutcome::index`].
    #[cfg(test)]
    pub(crate) fn add(&mut self, row: usize, count: u64) {
        self.0[row] += count;
    }

    /// The number of datagrams with `outcome`.
    #[must_use]
    pub const fn of(&self, outcome: FrameOutcome) -> u64 {
        self.0[outcome.index()]
    }

    /// The rows that are not zero, by [`FrameOutcome::index`].
    pub fn rows(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, count)| *count != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let labels = FrameOutcome::labels();
        let distinct: std::collections::HashSet<_> = labels.iter().collect();
        assert_eq!(distinct.len(), FrameOutcome::COUNT);
        assert_eq!(labels[FrameOutcome::Accepted.index()], "accepted");
        assert_eq!(labels[FrameOutcome::Capacity.index()], "capacity");
        assert_eq!(labels[FrameOutcome::ReplayTableFull.index()], "replay_table_full");
        assert_eq!(labels[FrameOutcome::Malformed(DecodeError::BadMagic).index()], "bad_magic");
    }
}
