//! What becomes of a datagram: accepted, or refused for exactly one reason.
//!
//! The books balance because every datagram that is read ends in one [`Outcome`] and each of them is one row of
//! `varta_frames_total`.

use varta_proto::DecodeError;

/// What became of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A beat. It moved its agent's deadline.
    Accepted,
    /// Not a frame; which rule it broke.
    Malformed(DecodeError),
    /// It carried file descriptors or other ancillary data for which there is no use. Nothing of it was kept.
    Ancillary,
    /// The kernel did not say who sent it.
    Unattested,
    /// The pid in the frame is not that of the process that sent it.
    PidMismatch,
    /// The sender's user and group are not among those allowed.
    UidRefused,
    /// The newest frame of a session once more.
    Duplicate,
    /// An older frame than the newest of its session.
    OutOfOrder,
    /// Beyond what one agent may send. It was only not counted: that its agent lives it proved all the same.
    RateLimitedAgent,
    /// Beyond what all agents together may send; the same goes for it.
    RateLimitedGlobal,
    /// From an agent for which there is no room.
    Capacity,
    /// From an agent beyond those that one address, or all together, may introduce over plaintext UDP, or beyond those that
    /// may share address and pid.
    SourceLimit,
    /// No key opens it: another's key, or something was changed on the way.
    DecryptFailed,
    /// It was opened, and is not newer than what came under its nonce prefix before.
    Replayed,
    /// It was opened, and begins a session for which the replay table has no room.
    ReplayTableFull,
}

impl Outcome {
    /// How many different rows there are.
    pub const COUNT: usize = 14 + DecodeError::KINDS.len();

    /// Its place among the rows, below [`Outcome::COUNT`].
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            Outcome::Accepted => 0,
            Outcome::Ancillary => 1,
            Outcome::Unattested => 2,
            Outcome::PidMismatch => 3,
            Outcome::UidRefused => 4,
            Outcome::Duplicate => 5,
            Outcome::OutOfOrder => 6,
            Outcome::RateLimitedAgent => 7,
            Outcome::RateLimitedGlobal => 8,
            Outcome::Capacity => 9,
            Outcome::SourceLimit => 10,
            Outcome::DecryptFailed => 11,
            Outcome::Replayed => 12,
            Outcome::ReplayTableFull => 13,
            Outcome::Malformed(error) => 14 + error.index(),
        }
    }

    /// The label value of each row, by [`Outcome::index`].
    #[must_use]
    pub fn labels() -> [&'static str; Outcome::COUNT] {
        const OURS: [&str; 14] = [
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
        ];
        std::array::from_fn(|index| match index.checked_sub(OURS.len()) {
            None => OURS[index],
            Some(kind) => DecodeError::KINDS[kind],
        })
    }
}

/// How many datagrams had each outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; Outcome::COUNT]);

impl Default for Tally {
    fn default() -> Self {
        Tally([0; Outcome::COUNT])
    }
}

impl Tally {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, outcome: Outcome) {
        self.0[outcome.index()] += 1;
    }

    /// Counts `count` more in a row, by [`Outcome::index`].
    #[cfg(test)]
    pub(crate) fn add(&mut self, row: usize, count: u64) {
        self.0[row] += count;
    }

    /// How many had `outcome`.
    #[must_use]
    pub const fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome.index()]
    }

    /// The rows that are not zero, by [`Outcome::index`].
    pub fn rows(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, count)| *count != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let labels = Outcome::labels();
        let distinct: std::collections::HashSet<_> = labels.iter().collect();
        assert_eq!(distinct.len(), Outcome::COUNT);
        assert_eq!(labels[Outcome::Accepted.index()], "accepted");
        assert_eq!(labels[Outcome::Capacity.index()], "capacity");
        assert_eq!(labels[Outcome::ReplayTableFull.index()], "replay_table_full");
        assert_eq!(labels[Outcome::Malformed(DecodeError::BadMagic).index()], "bad_magic");
    }
}
