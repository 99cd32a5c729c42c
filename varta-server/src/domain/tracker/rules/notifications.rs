//! Services that speak sd_notify(3): what their notifications change of their agents.
//!
//! Such a service is an agent by its main process. Most never send a keep-alive, so that none is awaited before one has
//! come: until then the agent is watched by its process alone, which counts as its sign of life.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::{KeepAlives, Notification, ReceivedBeat, Sender};
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::identity::Processes;
use crate::domain::tracker::agents::agent::{AgentHot, AskedTimeout};
use crate::domain::tracker::agents::index::NONE;
use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::verdict::Verdict;

impl Tracker {
    /// Handles a notification of `known`, if the sender is an agent already, and returns its outcome.
    ///
    /// An agent that beats by itself is judged by its beats: of its notifications only the status counts, since a
    /// keep-alive may come from a thread that goes on while its work hangs.
    pub(super) fn handle_notification(
        &mut self,
        known: Option<u32>,
        sender: Sender,
        notification: &Notification,
        at: MonoTime,
        processes: &mut impl Processes,
    ) -> FrameOutcome {
        if let Some(number) = known {
            // Before all else: what it says is in the transition that it causes.
            self.note_status(number, notification);
            if !self.agents.slot(number).is_notify() {
                return FrameOutcome::Accepted;
            }
        }
        let mut outcome = FrameOutcome::Accepted;
        if notification.is_beat {
            let beat = ReceivedBeat { received_at: at, sender, frame: notification.frame };
            outcome = self.handle_beat(&beat, known.unwrap_or(NONE), processes);
        }
        // A beat keeps the number of the agent that it is of.
        let Some(number) = known.or_else(|| self.agents.find(self.key_of(sender))) else {
            return if notification.is_beat { outcome } else { FrameOutcome::OutOfOrder };
        };
        self.await_keep_alives(number, notification.keep_alives, at);
        if let Some(busy_for) = notification.busy_for {
            self.allow_silence(number, busy_for, at);
        }
        if known.is_none() {
            self.note_status(number, notification);
        }
        if notification.is_goodbye {
            let last = Session::of(&notification.frame);
            self.handle_goodbye(number, last, Cause::Goodbye { reason: None }, at);
        }
        outcome
    }

    /// The services that are agents and live, as far as known: each by its main process, and the time within which its
    /// keep-alives are awaited.
    pub fn services(&self) -> Vec<(u32, Option<Duration>)> {
        let is_service = |slot: &AgentHot| {
            slot.is_notify() && slot.verdict.is_some_and(|verdict| verdict != Verdict::Gone)
        };
        let all = self.agents.range(0..self.agents.slots());
        let living = all.filter(|(_, slot, rest)| is_service(slot) && !rest.is_dead);
        living
            .map(|(_, slot, rest)| {
                let asked = rest.extra.as_ref().and_then(|extra| extra.asked);
                (slot.key.pid, asked.map(AskedTimeout::timeout).filter(|_| !slot.is_unawaited()))
            })
            .collect()
    }

    /// Takes the process of an agent of which no beat is awaited as its sign of life until `at`.
    pub(super) fn note_presence(&mut self, number: u32, at: MonoTime) {
        let slot = self.agents.slot_mut(number);
        if slot.is_unawaited() && slot.verdict.is_some_and(Verdict::is_awaited) {
            slot.last_beat = slot.last_beat.max(at);
        }
    }

    /// Applies what is awaited of an agent from now on.
    fn await_keep_alives(&mut self, number: u32, keep_alives: Option<KeepAlives>, at: MonoTime) {
        let Some(keep_alives) = keep_alives else { return };
        let asked = match keep_alives {
            KeepAlives::Unawaited => {
                let slot = self.agents.slot_mut(number);
                if slot.beats > 1 || slot.is_unawaited() {
                    return;
                }
                slot.set_unawaited(true);
                return self.note_asked(number, at);
            }
            KeepAlives::Within(timeout) => AskedTimeout::Requested(self.granted(timeout)),
            KeepAlives::Every(interval) => {
                let three = self.granted(interval.saturating_mul(AskedTimeout::INTERVALS));
                // Of a rhythm that was only seen nothing less than the default follows.
                AskedTimeout::Intervals(three.max(self.policy.stall_after))
            }
        };
        let (slot, rest) = self.agents.both_mut(number);
        let is_same = rest.extra.as_ref().is_some_and(|extra| extra.asked == Some(asked));
        if is_same && !slot.is_unawaited() {
            return;
        }
        // The time in which nothing was awaited is no silence.
        if slot.is_unawaited() {
            slot.last_beat = slot.last_beat.max(at);
        }
        slot.set_unawaited(false);
        rest.extra.get_or_insert_default().asked = Some(asked);
        self.forget_if_promised(number);
        self.note_asked(number, at);
    }

    /// Persists what is awaited of an agent, and has it checked in time.
    fn note_asked(&mut self, number: u32, at: MonoTime) {
        self.note(number);
        if self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited) {
            self.wheel.arm(number, self.first_check(number).max(at));
        }
    }

    /// Keeps what a service says of itself.
    fn note_status(&mut self, number: u32, notification: &Notification) {
        if let Some(status) = &notification.status {
            self.note_words(number, status);
        }
    }

    /// Keeps what an agent says of itself for people; nothing if that is empty.
    pub(super) fn note_words(&mut self, number: u32, said: &Arc<str>) {
        let rest = self.agents.rest_mut(number);
        let before = rest.extra.as_ref().and_then(|extra| extra.said.as_deref());
        if before.unwrap_or_default() == &**said {
            return;
        }
        rest.extra.get_or_insert_default().said = Some(said.clone()).filter(|said| !said.is_empty());
        if rest.extra.as_ref().is_some_and(|extra| extra.is_empty()) {
            rest.extra = None;
        }
    }

    /// Lets an agent be silent for a time from `at` on, within bounds.
    pub(super) fn allow_silence(&mut self, number: u32, busy_for: Duration, at: MonoTime) {
        let busy_until = at + busy_for.min(self.longest_silence());
        self.agents.rest_mut(number).extra.get_or_insert_default().busy_until = busy_until;
        self.note_asked(number, at);
    }
}
