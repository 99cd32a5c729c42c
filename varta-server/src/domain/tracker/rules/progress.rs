//! The effect of a counter that stands on the agent that counts.

use std::sync::Arc;
use std::time::Duration;

use crate::base::limits::{MAX_DURATION, MIN_STALL_AFTER};
use crate::base::time::MonoTime;
use crate::domain::process::Dossier;
use crate::domain::tracker::agents::agent::Inspection;
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::verdict::{Event, Verdict};

impl Tracker {
    /// When the counter of an agent that is not stalled has stood for as long as it may; `None` if it has none.
    ///
    /// Times in which the server could not see, or in which the agent has said that it is busy, do not count.
    pub(in crate::domain::tracker) fn counter_deadline(&self, number: u32) -> Option<MonoTime> {
        let slot = self.agents.slot(number);
        if !slot.counts() || !matches!(slot.verdict, Some(Verdict::Up(_) | Verdict::Unknown)) {
            return None;
        }
        let extra = self.agents.rest(number).extra.as_deref()?;
        let limit = extra.progress.limit(self.policy.no_progress_after)?;
        Some(self.observer_gaps.deadline(slot.moved_at(), limit).max(extra.busy_until))
    }

    /// Takes over what an agent said of its progress.
    pub(super) fn declare_progress(&mut self, number: u32, after: Duration) {
        let after = if after.is_zero() { after } else { after.clamp(MIN_STALL_AFTER, MAX_DURATION) };
        let extra = self.agents.rest_mut(number).extra.get_or_insert_default();
        if extra.progress.declared.replace(after) != Some(after) {
            self.watch_progress(number);
        }
    }

    /// Watches the counter of an agent, or no longer, by the rules and by what the agent said, and has the agent checked
    /// in time if its counter may stand for a shorter time than before.
    pub(super) fn watch_progress(&mut self, number: u32) {
        let (slot, rest) = self.agents.both_mut(number);
        let limit = rest.extra.as_ref().and_then(|extra| extra.progress.limit(self.policy.no_progress_after));
        slot.set_counts(limit.is_some());
        if slot.counts() && slot.verdict.is_some_and(Verdict::is_awaited) {
            self.wheel.arm(number, self.first_check(number));
        }
    }

    /// Whether a beat has shown that the counter of an agent which is up stands for longer than it may. If the time for
    /// it is over and no beat has come since, the next one will show it.
    pub(super) fn stands(&mut self, number: u32, now: MonoTime) -> bool {
        let Some(until) = self.counter_deadline(number) else { return false };
        let slot = self.agents.slot_mut(number);
        let is_due = now >= until && matches!(slot.verdict, Some(Verdict::Up(_)));
        slot.set_counter_due(is_due);
        is_due && slot.last_beat >= until
    }

    /// Handles a beat of an agent whose counter had stood for as long as it may.
    pub(super) fn review_counter(&mut self, number: u32, has_moved: bool, at: MonoTime) {
        if has_moved {
            self.agents.slot_mut(number).set_counter_due(false);
            self.wheel.arm(number, self.first_check(number).max(at));
        } else {
            // The verdict is given, or taken back, with the turn that handles this beat.
            self.wheel.arm(number, at);
        }
    }

    /// Has the process of an agent looked at whose counter stands, and calls the agent stalled when that is done.
    pub(super) fn judge_standing(&mut self, number: u32, now: MonoTime) {
        if !self.has_read(number) {
            return self.wheel.arm(number, now);
        }
        let is_looking =
            matches!(self.agents.rest(number).inquiry, Inspection::Looking | Inspection::LookingAgain);
        if is_looking {
            return match self.inspection_budget.waits_until(number, now) {
                Some(until) => self.wheel.arm(number, until),
                None => self.mark_stuck(number, now, None),
            };
        }
        if !self.await_look(number, Inspection::Looking, now) {
            self.mark_stuck(number, now, None);
        }
    }

    /// Calls an agent stalled because its counter stands.
    pub(super) fn mark_stuck(&mut self, number: u32, now: MonoTime, dossier: Option<Arc<Dossier>>) {
        let (slot, rest) = self.agents.both_mut(number);
        let Some(before) = slot.verdict else { return };
        let after = before.next(Event::DeadlinePassed);
        let since = slot.moved_at();
        slot.verdict = Some(after);
        let progress = &mut rest.extra.get_or_insert_default().progress;
        (progress.stands_since, progress.stood_before) = (since, Duration::ZERO);
        rest.stalls = rest.stalls.saturating_add(1);
        rest.inquiry = Inspection::None;
        self.recount(before, after);
        self.wheel.arm(number, self.forget_at(number, after));
        let change = TransitionDetails::new(Some(before), Cause::NoProgress, now, now.since(since));
        self.announce(number, TransitionDetails { dossier, ..change });
    }

    /// For how long the counter of an agent that was stalled for it has stood.
    pub(in crate::domain::tracker) fn stood_for(&self, number: u32, now: MonoTime) -> Duration {
        let extra = self.agents.rest(number).extra.as_ref();
        extra.map_or(Duration::ZERO, |extra| extra.progress.stood_for(now))
    }
}
