//! A look at all agents for what may become trouble: beats that are lost, and deadlines that leave no room for a loss.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::transition::AgentId;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The fewest beats of a session by which its interval is known.
const MIN_BEATS: u64 = 8;
/// The fewest beats of an agent that were lost before that is told.
const MIN_LOST: u64 = 5;
/// The part of an agent's beats that may be lost: one of so many.
const LOST_OF: u64 = 100;

/// Agents of which something is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Noticed<T> {
    /// How many there are.
    pub(crate) count: usize,
    /// The first of them, [`Review::SHOWN`] at most.
    pub(crate) first: Vec<(AgentId, T)>,
}

impl<T> Default for Noticed<T> {
    fn default() -> Self {
        Noticed { count: 0, first: Vec::new() }
    }
}

impl<T> Noticed<T> {
    fn add(&mut self, agent: impl FnOnce() -> AgentId, what: T) {
        self.count += 1;
        if self.first.len() < Review::SHOWN {
            self.first.push((agent(), what));
        }
    }
}

/// An agent that beats seldom for its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The mean time between its beats.
    pub(crate) interval: Duration,
    /// How long it may be silent.
    pub(crate) stall_after: Duration,
}

/// An agent whose beats are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The beats that did not arrive.
    pub(crate) lost: u64,
    /// Those that did.
    pub(crate) beats: u64,
}

/// What a look at all agents has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Review {
    /// Those that one lost beat would bring to their deadline.
    pub(crate) seldom: Noticed<Pace>,
    /// Those of whose beats more than one in a hundred are lost.
    pub(crate) lossy: Noticed<Loss>,
}

impl Review {
    /// The most agents that are named.
    pub(crate) const SHOWN: usize = 5;
}

impl Tracker {
    /// Adds what is to be told of the agents in a range of slot numbers.
    pub(crate) fn review(&self, range: Range<usize>, review: &mut Review) {
        for (number, slot, rest) in self.agents.range(range) {
            if !matches!(slot.verdict, Some(Verdict::Up(_))) {
                continue;
            }
            let agent = || AgentId {
                name: Arc::clone(self.names.get(rest.name)),
                origin: slot.origin(&self.sources),
                pid: slot.key.pid,
                twin: rest.twin,
            };
            let loss = Loss { lost: u64::from(rest.lost), beats: slot.beats };
            if loss.lost >= MIN_LOST && loss.lost.saturating_mul(LOST_OF) > loss.beats {
                review.lossy.add(agent, loss);
            }
            let stall_after = self.stall_after_of(number, rest);
            if let Some(interval) = mean_interval(slot.session)
                && interval.saturating_mul(2) >= stall_after
            {
                review.seldom.add(agent, Pace { interval, stall_after });
            }
        }
    }
}

/// The mean time between the beats of a session, by its newest: nonces count from 1, and the clock runs from about the
/// first. `None` while it has few beats.
fn mean_interval(session: Session) -> Option<Duration> {
    let Session { nonce, timestamp } = session;
    let is_known = nonce >= MIN_BEATS && session != Session::UNHEARD && timestamp > 0;
    is_known.then(|| Duration::from_nanos(timestamp / nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_known_by_the_clock_and_number_of_the_newest_beat() {
        let mean = |nonce, timestamp| mean_interval(Session { nonce, timestamp });
        assert_eq!(mean(10, 10_000_000_000), Some(Duration::from_secs(1)));
        assert_eq!(mean(7, 10_000_000_000), None, "too few");
        assert_eq!(mean(10, 0), None, "a clock that stands");
        assert_eq!(mean_interval(Session::UNHEARD), None);
    }
}
