//! The agents in alarm at present, for subscribers that may have missed how they came to be.

use std::ops::Range;
use std::sync::Arc;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::transition::Transition;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// The agents in a range of slot numbers that are in alarm, and those that may be and are not decided
    /// yet: `unknown`, and `expected` because a previous server knew them. Each as if it had come to that
    /// verdict just now, by the weakest cause that may have led there. The range is cut at
    /// [`Tracker::slots`].
    pub fn alarms(&self, range: Range<usize>, now: MonoTime) -> impl Iterator<Item = Transition> + '_ {
        self.agents.range(range).filter_map(move |(number, slot, _)| {
            let to = slot.verdict.filter(|verdict| verdict.is_alarm() || *verdict == Verdict::Unknown)?;
            let agent = self.id(number);
            let cause = match to {
                Verdict::Up(_) | Verdict::Gone => Cause::Reported,
                Verdict::Down => Cause::Exited { code: None },
                Verdict::Unknown => Cause::ObserverBlind,
                Verdict::Expected | Verdict::Stalled if agent.origin == Origin::Local => Cause::Silent,
                Verdict::Expected | Verdict::Stalled => Cause::Unreachable,
            };
            Some(Transition {
                agent,
                labels: self.labels(number),
                unit: self.unit(number),
                predecessor: None,
                process: self.incarnation(number),
                from: None,
                to,
                cause,
                at: now,
                silence: self.silence(number, now),
                last: slot.last_word(),
                stall_after: self.stall_after(number),
                detection_latency: None,
                mistake: None,
                dossier: None,
                incident: None,
            })
        })
    }

    /// The expected agents that are overdue, in the same form.
    pub fn missing_alarms(&self, now: MonoTime) -> impl Iterator<Item = Transition> + '_ {
        self.missing().map(move |name| Transition::of_missing(Arc::clone(name), now))
    }

    /// The names of the expected agents that have not come and are not overdue yet.
    pub fn awaited(&self) -> impl Iterator<Item = &Arc<str>> {
        self.awaited.undecided()
    }
}
