//! What agents say of themselves beside their beats: who they are, how long they may be silent, and that they leave.

use std::collections::VecDeque;
use std::time::Duration;

use super::Tracker;
use super::agent::AgentKey;
use super::cause::Cause;
use super::session::Session;
use super::verdict::Verdict;
use crate::beat::{Introduction, ReceivedControl, Said, Sender};
use crate::outcome::Outcome;
use crate::time::MonoTime;

/// Introductions that may wait for a first beat. Beyond it the oldest are dropped: an agent introduces itself again
/// within a minute.
const MOST_WAITING: usize = 4_096;
/// How many intervals an agent may be silent that tells only those.
const INTERVALS: u32 = 3;
/// The least that an agent may be given, whatever it asks for.
const SHORTEST_SILENCE: Duration = Duration::from_millis(10);

/// Introductions of agents that have not beaten yet.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<(Sender, Introduction)>);

impl Waiting {
    fn put(&mut self, sender: Sender, introduction: Introduction) {
        self.0.retain(|(waiting, _)| *waiting != sender);
        if self.0.len() >= MOST_WAITING {
            self.0.pop_front();
        }
        self.0.push_back((sender, introduction));
    }

    #[inline]
    pub(super) fn take(&mut self, sender: Sender) -> Option<Introduction> {
        if self.0.is_empty() {
            return None;
        }
        let place = self.0.iter().position(|(waiting, _)| *waiting == sender)?;
        self.0.remove(place).map(|(_, introduction)| introduction)
    }
}

impl Tracker {
    /// Takes a control datagram, and says what became of it. It moves no deadline by itself: only work proves that
    /// somebody works.
    pub fn handle_control(&mut self, control: &ReceivedControl) -> Outcome {
        let ReceivedControl { received_at: at, sender, ref said } = *control;
        let Sender { origin, pid, lane } = sender;
        let known =
            self.sources.find(origin).and_then(|source| self.agents.find(AgentKey { source, pid, lane }));
        match (known, said) {
            (Some(number), Said::Hello(introduction)) => {
                if let Some(limited) = self.limit(number, at) {
                    return limited;
                }
                self.introduce(number, introduction, at);
            }
            (None, Said::Hello(introduction)) => self.waiting.put(sender, introduction.clone()),
            (Some(number), Said::Goodbye { nonce, timestamp, reason }) => {
                let last = Session { nonce: *nonce, timestamp: *timestamp };
                self.handle_goodbye(number, last, Cause::Goodbye { reason: *reason }, at);
            }
            (None, Said::Goodbye { .. }) => return Outcome::OutOfOrder,
        }
        Outcome::Accepted
    }

    /// Believes what an agent says of itself, within bounds.
    pub(super) fn introduce(&mut self, number: u32, introduction: &Introduction, at: MonoTime) {
        let Introduction { name, interval, stall_after, busy_for } = introduction;
        if let Some(name) = name {
            self.rename(number, name.as_str());
            self.agents.rest_mut(number).named_itself = true;
        }
        let longest = self.policy.longest_silence.max(self.policy.stall_after);
        let of_interval = interval.map(|interval| (interval * INTERVALS).max(self.policy.stall_after));
        if let Some(asked) = stall_after.or(of_interval) {
            let granted = asked.clamp(SHORTEST_SILENCE, longest);
            self.agents.rest_mut(number).extra.get_or_insert_default().stall_after = Some(granted);
        }
        if let Some(busy_for) = busy_for {
            let rest = self.agents.rest_mut(number);
            rest.extra.get_or_insert_default().busy_until = at + (*busy_for).min(longest);
        }
        if self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited) {
            self.wheel.arm(number, self.first_look(number).max(at));
        }
    }

    /// Gives an agent another name.
    pub(super) fn rename(&mut self, number: u32, name: &str) {
        let new = self.names.take(name);
        let old = std::mem::replace(&mut self.agents.rest_mut(number).name, new);
        self.names.give_back(old);
    }
}
