//! The schedule of all pauses. Pure: takes time as an argument and has no side effects.

use std::time::SystemTime;

use crate::base::Glob;
use crate::services::maintenance::options::PlannedPauses;
use crate::services::maintenance::pause::{Pause, RequestedBy};

/// The pauses that are in force or in the future.
#[derive(Debug, Default)]
pub(super) struct Schedule(Vec<ScheduledPause>);

#[derive(Debug)]
struct ScheduledPause {
    pause: Pause,
    told: AnnouncedState,
}

/// The state of a pause that was announced last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnnouncedState {
    Nothing,
    Begun,
    Over,
}

/// The changes up to a time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tick {
    /// Pauses that have come into force.
    pub(super) begun: Vec<Pause>,
    /// Pauses that have ended. Requested ones are no longer in the schedule.
    pub(super) over: Vec<Pause>,
    /// The number in force.
    pub(super) in_force: usize,
    /// The time of the next start or end.
    pub(super) next: Option<SystemTime>,
}

/// The changes by a reload of the plan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replanned {
    /// Pauses that were in force and are no longer planned.
    pub(super) gone: Vec<Pause>,
    /// New pauses that have already ended.
    pub(super) too_late: Vec<Pause>,
}

/// The result of a resume.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResumeResult {
    /// This pause was removed.
    Done(Pause),
    /// The pattern is planned in the configuration file, and stays paused.
    Planned,
    /// No pause has this pattern.
    Unknown,
}

impl Schedule {
    /// The most requested pauses. Planned ones have a limit of their own.
    pub(super) const MAX_PAUSES: usize = 1_024;

    /// Whether an agent of this name is paused.
    pub(super) fn is_paused(&self, name: &str, now: SystemTime) -> bool {
        self.0
            .iter()
            .any(|ScheduledPause { pause, .. }| pause.is_in_force(now) && pause.pattern.matches(name))
    }

    /// Adds a requested pause. One of the same pattern is replaced and returned.
    ///
    /// # Errors
    ///
    /// The schedule is full. Nothing has changed then.
    pub(super) fn add(&mut self, pause: Pause) -> Result<Option<Pause>, ScheduleFull> {
        let entry = ScheduledPause { pause, told: AnnouncedState::Nothing };
        let is_former =
            |other: &ScheduledPause| other.is_asked() && other.pause.pattern == entry.pause.pattern;
        match self.0.iter().position(is_former) {
            Some(place) => Ok(Some(std::mem::replace(&mut self.0[place], entry).pause)),
            None if self.asked().count() >= Self::MAX_PAUSES => Err(ScheduleFull),
            None => {
                self.0.push(entry);
                Ok(None)
            }
        }
    }

    /// Removes the requested pause with exactly this pattern.
    pub(super) fn lift(&mut self, pattern: &Glob) -> ResumeResult {
        let is_it = |entry: &ScheduledPause| entry.pause.pattern == *pattern;
        match self.0.iter().position(|entry| entry.is_asked() && is_it(entry)) {
            Some(place) => ResumeResult::Done(self.0.remove(place).pause),
            None if self.0.iter().any(is_it) => ResumeResult::Planned,
            None => ResumeResult::Unknown,
        }
    }

    /// Replaces the planned pauses. One that was planned before and still is keeps its state.
    pub(super) fn plan(&mut self, planned: &PlannedPauses, now: SystemTime) -> Replanned {
        let (asked, mut before): (Vec<_>, Vec<_>) = self.0.drain(..).partition(ScheduledPause::is_asked);
        let mut too_late = Vec::new();
        for plan in planned.iter() {
            let is_same = |entry: &ScheduledPause| {
                let Pause { pattern, from, until, .. } = &entry.pause;
                (pattern, *from, *until) == (&plan.name, plan.from, plan.until)
            };
            let known = before.iter().position(is_same).map(|place| before.remove(place));
            let is_new = known.is_none();
            let (since, told) =
                known.map_or((now, AnnouncedState::Nothing), |known| (known.pause.since, known.told));
            let (pattern, reason) = (plan.name.clone(), plan.reason.clone());
            let (from, until) = (plan.from, plan.until);
            let pause = Pause { pattern, from, until, reason, by: RequestedBy::Configuration, since };
            if is_new && pause.is_over(now) {
                too_late.push(pause.clone());
            }
            self.0.push(ScheduledPause { pause, told });
        }
        self.0.extend(asked);
        let was_in_force = |entry: &ScheduledPause| entry.told == AnnouncedState::Begun;
        Replanned {
            gone: before.into_iter().filter(was_in_force).map(|entry| entry.pause).collect(),
            too_late,
        }
    }

    /// Advances the schedule to `now`. A second call at the same time returns no changes. Planned pauses stay
    /// after their end: a clock that was ahead for a moment must not end them for good.
    pub(super) fn turn(&mut self, now: SystemTime) -> Tick {
        let mut turn = Tick::default();
        self.0.retain_mut(|ScheduledPause { pause, told }| {
            let is_asked = matches!(pause.by, RequestedBy::User(_));
            if pause.is_over(now) {
                // A plan that had ended before it was announced is not worth a log line.
                if *told == AnnouncedState::Begun || is_asked {
                    turn.over.push(pause.clone());
                    *told = AnnouncedState::Over;
                }
                return !is_asked;
            }
            let is_in_force = pause.is_in_force(now);
            if is_in_force {
                turn.in_force += 1;
                if std::mem::replace(told, AnnouncedState::Begun) != AnnouncedState::Begun {
                    turn.begun.push(pause.clone());
                }
            }
            let change = if is_in_force { pause.until } else { pause.from };
            turn.next = [turn.next, change].into_iter().flatten().min();
            true
        });
        turn
    }

    /// All pauses: planned ones in the order of the file, also after their end, then requested ones in the
    /// order in which their patterns first came.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Pause> {
        self.0.iter().map(|entry| &entry.pause)
    }

    /// The requested pauses.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Pause> {
        self.0.iter().filter(|entry| entry.is_asked()).map(|entry| &entry.pause)
    }
}

/// The schedule has as many requested pauses as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScheduleFull;

impl ScheduledPause {
    fn is_asked(&self) -> bool {
        matches!(self.pause.by, RequestedBy::User(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::maintenance::options::PlannedPause;
    use crate::services::maintenance::testing::{asked, at, glob, planned};

    fn plan(pauses: &[Pause]) -> PlannedPauses {
        let mut planned = PlannedPauses::default();
        for Pause { pattern, from, until, reason, .. } in pauses.iter().cloned() {
            planned.add(PlannedPause { name: pattern, from, until, reason }).unwrap();
        }
        planned
    }

    fn patterns<'p>(pauses: impl IntoIterator<Item = &'p Pause>) -> Vec<&'p str> {
        pauses.into_iter().map(|pause| pause.pattern.as_str()).collect()
    }

    #[test]
    fn those_whose_names_fit_are_paused_until_it_is_over() {
        let mut list = Schedule::default();
        assert!(!list.is_paused("batch-1", at(0)));
        list.add(asked("batch-*", 60)).unwrap();
        assert!(list.is_paused("batch-1", at(59)) && !list.is_paused("mail", at(59)));
        // Also before it is removed from the schedule.
        assert!(!list.is_paused("batch-1", at(60)));
    }

    #[test]
    fn each_beginning_and_each_end_is_told_once_and_the_next_is_known() {
        let mut list = Schedule::default();
        list.plan(&plan(&[planned("night", Some(30), Some(40))]), at(0));
        list.add(asked("batch", 20)).unwrap();
        let turn = list.turn(at(0));
        assert_eq!((patterns(&turn.begun), turn.in_force, turn.next), (vec!["batch"], 1, Some(at(20))));
        let turn = list.turn(at(20));
        assert_eq!((patterns(&turn.over), turn.in_force, turn.next), (vec!["batch"], 0, Some(at(30))));
        let turn = list.turn(at(30));
        assert_eq!((patterns(&turn.begun), turn.in_force, turn.next), (vec!["night"], 1, Some(at(40))));
        assert_eq!(list.turn(at(30)), Tick { in_force: 1, next: Some(at(40)), ..Tick::default() });
        assert_eq!(patterns(&list.turn(at(41)).over), ["night"]);
        assert_eq!(list.turn(at(99)), Tick::default());
    }

    #[test]
    fn one_without_an_end_stays_and_asks_for_no_wake_up() {
        let mut list = Schedule::default();
        list.plan(&plan(&[planned("a", None, None)]), at(0));
        let turn = list.turn(at(0));
        assert_eq!((turn.in_force, turn.next), (1, None));
        assert!(list.is_paused("a", at(1 << 33)));
    }

    #[test]
    fn a_pause_of_the_same_pattern_replaces_the_former_and_not_a_planned_one() {
        let mut list = Schedule::default();
        list.plan(&plan(&[planned("a", None, None)]), at(0));
        assert_eq!(list.add(asked("a", 10)), Ok(None));
        assert_eq!(list.add(asked("a", 20)), Ok(Some(asked("a", 10))));
        assert_eq!(list.iter().len(), 2);
        assert_eq!(list.lift(&glob("a")), ResumeResult::Done(asked("a", 20)));
        assert_eq!(list.lift(&glob("a")), ResumeResult::Planned);
        assert_eq!(list.lift(&glob("a*")), ResumeResult::Unknown);
    }

    #[test]
    fn there_are_no_more_than_there_may_be_and_the_planned_ones_take_no_place() {
        let mut list = Schedule::default();
        list.plan(&plan(&[planned("planned", None, None)]), at(0));
        for number in 0..Schedule::MAX_PAUSES {
            list.add(asked(&format!("a{number}"), 10)).unwrap();
        }
        assert_eq!(list.add(asked("one-more", 10)), Err(ScheduleFull));
        assert!(list.add(asked("a0", 20)).is_ok(), "it takes the place of another");
        list.turn(at(10));
        assert!(list.add(asked("one-more", 30)).is_ok(), "those that are over make room");
    }

    #[test]
    fn what_is_planned_anew_replaces_what_was_planned_and_leaves_what_was_asked_for() {
        let mut list = Schedule::default();
        let [stays, goes] = ["stays", "goes"].map(|name| planned(name, None, None));
        let later = planned("later", Some(50), None);
        list.plan(&plan(&[goes.clone(), stays.clone(), later]), at(0));
        list.add(asked("asked", 90)).unwrap();
        list.turn(at(0));
        let replanned = list.plan(&plan(&[stays, planned("new", None, None)]), at(7));
        assert_eq!(
            replanned,
            Replanned { gone: vec![goes], too_late: vec![] },
            "of what had not begun nothing is said"
        );
        assert_eq!(patterns(list.iter()), ["stays", "new", "asked"]);
        assert_eq!(list.iter().next().unwrap().since, at(0));
        assert_eq!(patterns(&list.turn(at(7)).begun), ["new"]);
    }

    #[test]
    fn a_plan_that_is_over_when_it_is_read_is_told_as_that_once() {
        let mut list = Schedule::default();
        let late = planned("a", None, Some(5));
        let plan = plan(&[late.clone(), planned("b", None, None)]);
        let Replanned { gone, too_late } = list.plan(&plan, at(9));
        assert_eq!((patterns(&gone), patterns(&too_late)), (vec![], vec!["a"]));
        assert_eq!((patterns(&list.turn(at(9)).begun), list.turn(at(9)).over), (vec!["b"], vec![]));
        assert_eq!(list.plan(&plan, at(10)), Replanned::default(), "it was read before");
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_moment_ends_no_plan_for_good() {
        let mut list = Schedule::default();
        list.plan(&plan(&[planned("a", Some(10), Some(20)), planned("later", Some(30), Some(40))]), at(0));
        assert_eq!(patterns(&list.turn(at(10)).begun), ["a"]);
        let turn = list.turn(at(1_000_000));
        assert_eq!((patterns(&turn.over), turn.in_force, turn.next), (vec!["a"], 0, None));
        assert_eq!(list.turn(at(1_000_001)), Tick::default());
        let turn = list.turn(at(11));
        assert_eq!((patterns(&turn.begun), turn.in_force, turn.next), (vec!["a"], 1, Some(at(20))));
        assert!(list.is_paused("a", at(11)));
        let turn = list.turn(at(20));
        assert_eq!((patterns(&turn.over), turn.next), (vec!["a"], Some(at(30))));
        assert_eq!(patterns(&list.turn(at(30)).begun), ["later"]);
    }
}
