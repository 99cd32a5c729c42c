//! What is known of one agent that is in alarm, or was a short while ago.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::services::alerts::alert::Fingerprint;

/// When an agent that falls again and again is told of once instead of each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damping {
    /// So many falls within the window; 0 for never.
    pub(crate) limit: usize,
    pub(crate) window: Duration,
}

/// One agent.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Whether it is in alarm, as far as is known.
    pub(super) is_ill: bool,
    /// Whether its alert goes on until it was well for a whole window.
    pub(super) is_flapping: bool,
    /// The alert that tells of it, its own or one for many. None for one that is well and does not flap.
    pub(super) told_by: Option<Fingerprint>,
    /// The newest falls, no more than the limit.
    falls: VecDeque<MonoTime>,
    /// Since when it is well, if it is.
    pub(super) well_since: MonoTime,
    /// Whether it is in the queue of those that are looked at when a window has passed.
    pub(super) is_waiting: bool,
    /// The last sweep that met it.
    pub(super) met_in: u64,
}

impl Record {
    /// Takes note that it came to be in alarm, and says whether that makes it one that flaps.
    pub(super) fn fall(&mut self, at: MonoTime, damping: Damping) -> bool {
        self.is_ill = true;
        if damping.limit == 0 {
            return false;
        }
        self.falls.push_back(at);
        while self.falls.len() > damping.limit
            || self.falls.front().is_some_and(|fall| at.since(*fall) > damping.window)
        {
            self.falls.pop_front();
        }
        let flaps = self.falls.len() >= damping.limit;
        let is_news = flaps && !self.is_flapping;
        self.is_flapping |= flaps;
        is_news
    }

    /// One that a server before this one knew.
    pub(super) fn restored(is_ill: bool, is_flapping: bool, falls: VecDeque<MonoTime>) -> Self {
        Record { is_ill, is_flapping, falls, ..Record::default() }
    }

    /// One that takes the place of another, and has its falls.
    pub(super) fn successor(self) -> Self {
        Record { is_ill: false, told_by: None, is_flapping: false, is_waiting: false, ..self }
    }

    pub(super) fn falls(&self) -> impl Iterator<Item = MonoTime> + '_ {
        self.falls.iter().copied()
    }

    /// Whether there is nothing to know about it any more.
    pub(super) fn is_blank(&self) -> bool {
        !self.is_ill && self.told_by.is_none() && self.falls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMPING: Damping = Damping { limit: 3, window: Duration::from_secs(600) };

    #[test]
    fn the_third_fall_within_a_window_is_flapping() {
        let mut record = Record::default();
        let falls = [0, 300, 601, 602, 603].map(|at| record.fall(MonoTime::from_secs(at), DAMPING));
        assert_eq!(
            falls,
            [false, false, false, true, false],
            "the first was too long ago, and it is news once"
        );
        assert_eq!(record.falls().count(), 3);
    }

    #[test]
    fn with_a_limit_of_0_nothing_flaps_and_nothing_is_kept() {
        let mut record = Record::default();
        let off = Damping { limit: 0, ..DAMPING };
        assert!((0..100).all(|at| !record.fall(MonoTime::from_secs(at), off)));
        assert_eq!(record.falls().count(), 0);
    }
}
