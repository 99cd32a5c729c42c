//! The agents in alarm at present, for subscribers that may have missed how they came to be.

use std::ops::Range;
use std::sync::Arc;

use crate::base::time::MonoTime;
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::Transition;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// The agents in a range of slot numbers that are in alarm, and those that may be and are not decided
    /// yet: `unknown`, and `expected` because a previous server knew them. Each as if it had come to that
    /// verdict just now, by the weakest cause that may have led there. The range is cut at
    /// [`Tracker::slots`]. One that has just ended, and whose place another may take, is not decided yet.
    pub fn alarms(&self, range: Range<usize>, now: MonoTime) -> impl Iterator<Item = Transition> + '_ {
        self.agents.range(range).filter_map(move |(number, slot, _)| {
            let to = slot.verdict.filter(|verdict| verdict.is_alarm() || *verdict == Verdict::Unknown)?;
            let may_be_replaced = to == Verdict::Down && !slot.terminal && now < self.settles_at(number);
            let to = if may_be_replaced { Verdict::Unknown } else { to };
            let is_local = slot.origin(&self.sources).address().is_none();
            let cause = match to {
                Verdict::Up(_) | Verdict::Gone => Cause::Reported,
                Verdict::Down => Cause::Exited { code: None },
                Verdict::Unknown => Cause::ObserverBlind,
                Verdict::Stalled if slot.is_held_by_job() => self.held_cause(number),
                Verdict::Stalled if slot.is_stuck() => Cause::NoProgress,
                Verdict::Expected | Verdict::Stalled if is_local => Cause::Silent,
                Verdict::Expected | Verdict::Stalled => Cause::Unreachable,
            };
            let change = TransitionDetails::new(None, cause, now, self.silence(number, now));
            Some(self.transition_of(number, to, change))
        })
    }

    /// The expected agents that are overdue, in the same form.
    pub fn missing_alarms(&self, now: MonoTime) -> impl Iterator<Item = Transition> + '_ {
        let missing = self.expected.missing().map(move |name| Transition::of_missing(name, now));
        missing.chain(self.late_alarms(now))
    }

    /// The names of the expected agents that have not come and are not overdue yet.
    pub fn awaited(&self) -> impl Iterator<Item = &Arc<str>> {
        self.expected.pending_decision()
    }
}
