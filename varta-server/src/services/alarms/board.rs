//! The board of alarms: follows the changes of verdicts, and forgets whoever is well.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::time::{MonoTime, WallTime};
use crate::domain::tracker::{AgentId, Problem, Transition};

/// An agent in alarm.
#[derive(Clone, Debug)]
pub(crate) struct Alarm {
    /// What is wrong with it.
    pub(crate) problem: Problem,
    /// The change by which that came to be, as far as it is known: of one from before this server's start, or whose
    /// change found no place in the queue, only the verdict is.
    pub(crate) change: Arc<Transition>,
    /// When that was; `None` if the change is not known.
    pub(crate) since: Option<WallTime>,
}

/// The alarms at present. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarms(Arc<Mutex<Board>>);

/// Every alarm, by its agent.
#[derive(Debug, Default)]
pub(super) struct Board {
    alarms: HashMap<AgentId, Alarm>,
    /// Whether there were more than [`Board::MAX`] since the last sweep.
    is_cut: bool,
}

impl Alarms {
    /// The worst alarms at `now`, `most` of them, and how many there are; a death whose place another may still take
    /// is none yet. The worst comes first, and of those the oldest.
    pub(crate) fn worst(&self, most: usize, now: MonoTime) -> (Vec<Alarm>, usize) {
        self.with(|board| board.worst(most, now))
    }

    /// The alarm of an agent, if it is in alarm.
    pub(crate) fn of_agent(&self, agent: &AgentId) -> Option<Alarm> {
        self.with(|board| board.alarms.get(agent).cloned())
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Board) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Board {
    /// The most alarms: more than people read, and few compared to a tracker's capacity.
    pub(super) const MAX: usize = 10_000;

    /// Follows a change of a verdict, which came at this time.
    pub(super) fn apply(&mut self, change: Transition, at: WallTime) {
        for gone in [&change.predecessor].into_iter().flatten() {
            self.alarms.remove(gone);
        }
        match Problem::of(change.to).filter(|_| change.successor.is_none()) {
            None => drop(self.alarms.remove(&change.agent)),
            Some(problem) => {
                let agent = change.agent.clone();
                self.put(agent, Alarm { problem, change: Arc::new(change), since: Some(at) });
            }
        }
    }

    /// Drops the alarm of an agent that the tracker has forgotten.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.alarms.remove(agent);
    }

    /// Puts in order what does not agree with the agents that a sweep over the tracker has found in alarm or not
    /// decided yet.
    pub(super) fn reconcile(&mut self, found: Vec<Transition>) {
        let mut known = std::mem::take(&mut self.alarms);
        self.is_cut = false;
        for change in found {
            let before = known.remove(&change.agent);
            let agent = change.agent.clone();
            match (Problem::of(change.to), before) {
                (problem, Some(before)) if problem.is_none_or(|problem| problem == before.problem) => {
                    self.put(agent, before);
                }
                (Some(problem), _) => {
                    self.put(agent, Alarm { problem, change: Arc::new(change), since: None });
                }
                (None, _) => {}
            }
        }
    }

    /// Whether an alarm found no place since the last sweep, and there is room again.
    pub(super) fn wants_sweep(&self) -> bool {
        self.is_cut && self.alarms.len() < Self::MAX / 2
    }

    fn put(&mut self, agent: AgentId, alarm: Alarm) {
        if self.alarms.len() >= Self::MAX && !self.alarms.contains_key(&agent) {
            self.is_cut = true;
            return;
        }
        self.alarms.insert(agent, alarm);
    }

    fn worst(&self, most: usize, now: MonoTime) -> (Vec<Alarm>, usize) {
        let is_settled = |alarm: &&Alarm| alarm.problem != Problem::Down || alarm.change.settles_at <= now;
        let mut alarms: Vec<_> = self.alarms.values().filter(is_settled).collect();
        let count = alarms.len();
        let order = |alarm: &&Alarm| {
            let Transition { agent, at, .. } = &*alarm.change;
            (Reverse(alarm.problem), alarm.since.map(|_| *at), Arc::clone(&agent.name), agent.pid)
        };
        alarms.sort_by_cached_key(order);
        (alarms.into_iter().take(most).cloned().collect(), count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use varta_proto::Status;

    use super::*;
    use crate::domain::tracker::Verdict;

    fn change(name: &str, to: Verdict, at: u64) -> Transition {
        let at = MonoTime::from_millis(at);
        Transition { to, settles_at: at, ..Transition::of_missing(&name.into(), at) }
    }

    fn names(board: &Board) -> Vec<(String, Problem)> {
        let (alarms, count) = board.worst(100, MonoTime::from_millis(1_000));
        assert_eq!(alarms.len(), count);
        alarms.iter().map(|alarm| (alarm.change.agent.name.to_string(), alarm.problem)).collect()
    }

    fn wall(millis: u64) -> WallTime {
        WallTime::default().after(Duration::from_millis(millis))
    }

    #[test]
    fn the_worst_and_oldest_comes_first_and_whoever_is_well_or_replaced_is_off_the_board() {
        let mut board = Board::default();
        for (name, to, at) in [
            ("b", Verdict::Stalled, 20),
            ("a", Verdict::Stalled, 30),
            ("c", Verdict::Down, 40),
            ("d", Verdict::Up(Status::Critical), 50),
            ("e", Verdict::Expected, 10),
            ("f", Verdict::Unknown, 10),
        ] {
            board.apply(change(name, to, at), wall(at));
        }
        let of = |name: &str, problem| (name.to_owned(), problem);
        let all = [
            of("c", Problem::Down),
            of("d", Problem::Critical),
            of("b", Problem::Stalled),
            of("a", Problem::Stalled),
            of("e", Problem::Missing),
        ];
        assert_eq!(names(&board), all);
        let (alarms, count) = board.worst(1, MonoTime::from_millis(1_000));
        assert_eq!((alarms.len(), count), (1, 5));
        assert_eq!(alarms[0].since, Some(wall(40)));

        board.apply(change("b", Verdict::Up(Status::Ok), 60), wall(60));
        board.forget(&change("e", Verdict::Gone, 0).agent);
        let predecessor = Some(change("c", Verdict::Down, 0).agent);
        board.apply(Transition { predecessor, ..change("x", Verdict::Up(Status::Ok), 60) }, wall(60));
        assert_eq!(names(&board), [of("d", Problem::Critical), of("a", Problem::Stalled)]);
    }

    #[test]
    fn a_death_whose_place_another_may_take_is_no_alarm_yet() {
        let mut board = Board::default();
        let settles_at = MonoTime::from_millis(2_000);
        board.apply(Transition { settles_at, ..change("a", Verdict::Down, 10) }, wall(10));
        assert!(names(&board).is_empty());
        assert_eq!(board.worst(9, settles_at).1, 1);
    }

    #[test]
    fn a_sweep_finds_what_was_missed_and_keeps_what_is_known_of_the_others() {
        let mut board = Board::default();
        for name in ["kept", "pending", "worse", "over"] {
            board.apply(change(name, Verdict::Stalled, 10), wall(10));
        }
        board.reconcile(vec![
            change("kept", Verdict::Stalled, 500),
            change("pending", Verdict::Unknown, 500),
            change("worse", Verdict::Down, 500),
            change("missed", Verdict::Stalled, 500),
            change("undecided", Verdict::Unknown, 500),
        ]);
        let (alarms, _) = board.worst(9, MonoTime::from_millis(1_000));
        let found: Vec<_> =
            alarms.iter().map(|alarm| (&*alarm.change.agent.name, alarm.problem, alarm.since)).collect();
        assert_eq!(
            found,
            [
                ("worse", Problem::Down, None),
                ("missed", Problem::Stalled, None),
                ("kept", Problem::Stalled, Some(wall(10))),
                ("pending", Problem::Stalled, Some(wall(10))),
            ]
        );
    }

    #[test]
    fn beyond_its_bound_it_takes_no_more_until_half_of_them_are_over() {
        let mut board = Board::default();
        for number in 0..=Board::MAX {
            board.apply(change(&format!("a{number}"), Verdict::Stalled, 10), wall(10));
        }
        assert_eq!(board.worst(0, MonoTime::from_millis(1_000)).1, Board::MAX);
        assert!(board.is_cut && !board.wants_sweep());
        for number in 0..=Board::MAX / 2 {
            board.apply(change(&format!("a{number}"), Verdict::Up(Status::Ok), 20), wall(20));
        }
        assert!(board.wants_sweep());
        board.reconcile(vec![change("one", Verdict::Stalled, 30)]);
        assert_eq!(names(&board), [("one".to_owned(), Problem::Stalled)]);
        assert!(!board.wants_sweep());
    }
}
