//! Notifications that wait for one receiver, in a queue for each agent: those of one agent go out in order,
//! and one that is refused or slow holds up no other agent's.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

use crate::base::backoff::Backoff;

/// Notifications by agent. The agent of a notification is its key.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: HashMap<String, Lane<T>>,
    /// Agents whose first notification may go out, the one that waits for longest first.
    ready: VecDeque<String>,
    /// Agents whose first notification has failed, by the time of its next attempt.
    delayed: BTreeSet<(Instant, String)>,
    /// Notifications in all lanes, without those that are on their way.
    waiting: usize,
}

#[derive(Debug)]
struct Lane<T> {
    queue: VecDeque<T>,
    /// Of its first notification.
    backoff: Backoff,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Lanes { lanes: HashMap::new(), ready: VecDeque::new(), delayed: BTreeSet::new(), waiting: 0 }
    }

    /// The notifications that wait.
    pub(super) const fn len(&self) -> usize {
        self.waiting
    }

    /// Adds a notification behind those of the same agent.
    pub(super) fn push(&mut self, agent: &str, notice: T) {
        self.waiting += 1;
        if let Some(lane) = self.lanes.get_mut(agent) {
            lane.queue.push_back(notice);
            return;
        }
        let lane = Lane { queue: VecDeque::from([notice]), backoff: Backoff::default() };
        self.lanes.insert(agent.to_owned(), lane);
        self.ready.push_back(agent.to_owned());
    }

    /// Takes the next notification that may go out at `now`. Its agent's next one waits for
    /// [`Lanes::finish`] or [`Lanes::retry`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(String, T)> {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            self.ready.extend(self.delayed.pop_first().map(|(_, agent)| agent));
        }
        let agent = self.ready.pop_front()?;
        let notice = self.lanes.get_mut(&agent)?.queue.pop_front()?;
        self.waiting -= 1;
        Some((agent, notice))
    }

    /// When a notification may go out that may not yet; `None` if there is none.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// The back-off of the notification of this agent that is on its way.
    pub(super) fn backoff(&self, agent: &str) -> Backoff {
        self.lanes.get(agent).map(|lane| lane.backoff).unwrap_or_default()
    }

    /// Notes that the notification of this agent that was on its way needs no further attempt.
    pub(super) fn finish(&mut self, agent: String) {
        let Some(lane) = self.lanes.get_mut(&agent) else { return };
        lane.backoff.reset();
        if lane.queue.is_empty() {
            self.lanes.remove(&agent);
        } else {
            self.ready.push_back(agent);
        }
    }

    /// Puts back the notification of this agent that was on its way, until `at`.
    pub(super) fn retry(&mut self, agent: String, notice: T, backoff: Backoff, at: Instant) {
        let Some(lane) = self.lanes.get_mut(&agent) else { return };
        lane.backoff = backoff;
        lane.queue.push_front(notice);
        self.waiting += 1;
        self.delayed.insert((at, agent));
    }

    /// Takes all notifications that wait.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        (self.waiting, self.ready, self.delayed) = (0, VecDeque::new(), BTreeSet::new());
        self.lanes.drain().flat_map(|(_, lane)| lane.queue).collect()
    }

    /// Lets all notifications go out at once.
    pub(super) fn hurry(&mut self) {
        self.ready.extend(std::mem::take(&mut self.delayed).into_iter().map(|(_, agent)| agent));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn all_at(lanes: &mut Lanes<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| lanes.next(now)).map(|(_, notice)| notice).collect()
    }

    #[test]
    fn one_agent_waits_for_its_own_notices_only() {
        let (mut lanes, now) = (Lanes::new(), Instant::now());
        for (agent, notice) in [("a", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5)] {
            lanes.push(agent, notice);
        }
        assert_eq!((all_at(&mut lanes, now), lanes.len()), (vec![1, 3], 3));
        lanes.finish("b".to_owned());
        assert_eq!(all_at(&mut lanes, now), [5], "the first of a is on its way");
        let later = now + Duration::from_secs(2);
        let mut backoff = lanes.backoff("a");
        backoff.next_delay();
        lanes.retry("a".to_owned(), 1, backoff, later);
        lanes.push("a", 6);
        assert_eq!((all_at(&mut lanes, now), lanes.next_at()), (vec![], Some(later)));
        assert_eq!(lanes.backoff("a").next_delay(), Duration::from_secs(2));
        assert_eq!(all_at(&mut lanes, later), [1]);
        lanes.finish("a".to_owned());
        assert_eq!(lanes.backoff("a").next_delay(), Duration::from_secs(1));
        assert_eq!(all_at(&mut lanes, now), [2]);
        lanes.finish("a".to_owned());
        assert_eq!(all_at(&mut lanes, now), [4]);
    }

    #[test]
    fn nothing_is_kept_of_an_agent_whose_notices_are_out_and_a_hurry_waits_for_nobody() {
        let (mut lanes, now) = (Lanes::new(), Instant::now());
        lanes.push("a", 1);
        lanes.push("b", 2);
        assert_eq!(all_at(&mut lanes, now), [1, 2]);
        lanes.finish("a".to_owned());
        lanes.retry("b".to_owned(), 2, Backoff::default(), now + Duration::from_secs(60));
        assert_eq!((lanes.lanes.len(), lanes.len()), (1, 1));
        lanes.hurry();
        assert_eq!((lanes.next_at(), all_at(&mut lanes, now)), (None, vec![2]));
        lanes.finish("b".to_owned());
        assert_eq!((lanes.lanes.len(), lanes.len(), lanes.ready.len()), (0, 0, 0));
    }
}
