//! The budget for inspections of processes, and how long verdicts wait for one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::rate_limit::{RateLimit, Usage};
use crate::base::time::MonoTime;

/// The maximum time that a verdict waits for an inspection of the process. An inspection takes a fraction of
/// it; when it is delayed, the verdict is given without.
const WITHIN: Duration = Duration::from_millis(20);

/// The inspections that the tracker has requested.
#[derive(Debug)]
pub(in crate::domain::tracker) struct InspectionBudget {
    limit: RateLimit,
    usage: Usage,
    refused: u64,
    /// Until when the verdicts on agents wait, earliest first: the limit bounds how many do. Some inspections
    /// have come back, or their agents have beaten meanwhile.
    waiting: VecDeque<(MonoTime, u32)>,
}

impl InspectionBudget {
    pub(in crate::domain::tracker) fn new(per_second: u32) -> Self {
        InspectionBudget {
            limit: RateLimit::none_if_zero(per_second),
            usage: Usage::default(),
            refused: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Whether one more inspection may be requested. A refusal is counted.
    pub(in crate::domain::tracker) fn allow(&mut self, now: MonoTime) -> bool {
        let is_allowed = self.limit.try_take(&mut self.usage, now);
        self.refused += u64::from(!is_allowed);
        is_allowed
    }

    /// Has the verdict on an agent wait for an inspection, and returns the time until which it waits.
    pub(in crate::domain::tracker) fn wait_for(&mut self, number: u32, now: MonoTime) -> MonoTime {
        while self.waiting.front().is_some_and(|(until, _)| *until <= now) {
            self.waiting.pop_front();
        }
        let until = now + WITHIN;
        self.waiting.push_back((until, number));
        until
    }

    /// Until when the verdict on an agent waits; `None` if it does not.
    pub(in crate::domain::tracker) fn waits_until(&self, number: u32, now: MonoTime) -> Option<MonoTime> {
        let of_agent = self.waiting.iter().rev().find(|(_, waiting)| *waiting == number);
        of_agent.map(|(until, _)| *until).filter(|until| now < *until)
    }

    /// Goes on counting from so many refused inspections.
    pub(in crate::domain::tracker) const fn set_refused(&mut self, refused: u64) {
        self.refused = refused;
    }

    /// The number of refused inspections.
    pub(in crate::domain::tracker) const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_waits_for_the_last_look_that_was_asked_for_and_for_a_moment_only() {
        let mut looks = InspectionBudget::new(200);
        let now = MonoTime::from_secs(1);
        assert_eq!(looks.waits_until(7, now), None);
        looks.wait_for(7, now);
        let later = now + WITHIN / 2;
        let until = looks.wait_for(7, later);
        assert_eq!(looks.waits_until(7, later), Some(until));
        assert_eq!(looks.waits_until(8, later), None);
        assert_eq!(looks.waits_until(7, until), None);
        looks.wait_for(8, until);
        assert_eq!(looks.waiting.len(), 1, "what is over is not kept");
    }

    #[test]
    fn no_more_are_granted_than_the_rate_allows_and_what_is_refused_is_counted() {
        let mut looks = InspectionBudget::new(2);
        let mut allow = |millis| looks.allow(MonoTime::from_millis(millis));
        assert_eq!([5_000, 5_000, 5_000, 5_499].map(&mut allow), [true, true, false, false]);
        assert_eq!([5_500, 5_500].map(&mut allow), [true, false]);
        assert_eq!(looks.refused(), 3);
    }

    #[test]
    fn with_none_a_second_each_is_refused_and_counted() {
        let mut looks = InspectionBudget::new(0);
        assert!(!looks.allow(MonoTime::from_secs(1)));
        assert_eq!(looks.refused(), 1);
    }
}
