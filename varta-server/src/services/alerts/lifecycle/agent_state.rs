//! The state of one agent that is in alarm, or was so within the flap window.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::services::alerts::alert::Fingerprint;

/// Flap detection: an agent that fails repeatedly keeps one alert in place of one for each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlapDetection {
    /// So many failures within the window are flapping; 0 turns it off.
    pub(crate) limit: usize,
    pub(crate) window: Duration,
}

/// The state of one agent.
#[derive(Debug, Default)]
pub(super) struct AgentAlertState {
    /// Whether it is in alarm, as far as is known.
    pub(super) is_unhealthy: bool,
    /// Whether its alert fires until it was healthy for a whole window.
    pub(super) is_flapping: bool,
    /// The alert that covers it, its own or a group's. `None` for one that is healthy and does not flap.
    pub(super) told_by: Option<Fingerprint>,
    /// The newest failures, at most `limit` of them.
    falls: VecDeque<MonoTime>,
    /// The start of its healthy period, if it is healthy.
    pub(super) well_since: MonoTime,
    /// Whether it is queued for a check at the end of a window.
    pub(super) is_waiting: bool,
    /// The number of the last sweep that found it.
    pub(super) met_in: u64,
}

impl AgentAlertState {
    /// Records a failure, and returns whether the agent starts to flap with it.
    pub(super) fn failure(&mut self, at: MonoTime, damping: FlapDetection) -> bool {
        self.is_unhealthy = true;
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

    /// The state of an agent from the server's previous run.
    pub(super) fn restored(is_ill: bool, is_flapping: bool, falls: VecDeque<MonoTime>) -> Self {
        AgentAlertState { is_unhealthy: is_ill, is_flapping, falls, ..AgentAlertState::default() }
    }

    /// The state for the successor of an agent, which inherits its failures.
    pub(super) fn successor(self) -> Self {
        AgentAlertState { is_unhealthy: false, told_by: None, is_flapping: false, is_waiting: false, ..self }
    }

    pub(super) fn falls(&self) -> impl Iterator<Item = MonoTime> + '_ {
        self.falls.iter().copied()
    }

    /// Whether nothing is left to remember.
    pub(super) fn is_blank(&self) -> bool {
        !self.is_unhealthy && self.told_by.is_none() && self.falls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMPING: FlapDetection = FlapDetection { limit: 3, window: Duration::from_secs(600) };

    #[test]
    fn the_third_fall_within_a_window_is_flapping() {
        let mut record = AgentAlertState::default();
        let falls = [0, 300, 601, 602, 603].map(|at| record.failure(MonoTime::from_secs(at), DAMPING));
        assert_eq!(
            falls,
            [false, false, false, true, false],
            "the first was too long ago, and it is news once"
        );
        assert_eq!(record.falls().count(), 3);
    }

    #[test]
    fn with_a_limit_of_0_nothing_flaps_and_nothing_is_kept() {
        let mut record = AgentAlertState::default();
        let off = FlapDetection { limit: 0, ..DAMPING };
        assert!((0..100).all(|at| !record.failure(MonoTime::from_secs(at), off)));
        assert_eq!(record.falls().count(), 0);
    }
}
