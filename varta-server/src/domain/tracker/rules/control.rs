//! What agents say of themselves beside their beats: who they are, how long they may be silent, and that they leave.

use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::{Introduction, ReceivedControl, Said, Sender};
use crate::domain::expected::ExpectedAgents;
use crate::domain::outcome::Outcome;
use crate::domain::rules::Rules;
use crate::domain::tracker::agents::agent::{AgentKey, PageUse, Rest};
use crate::domain::tracker::agents::names::NameSource;
use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::state::{Change, LOOKS_PER_TURN, Tracker};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// How many intervals an agent may be silent that tells only those.
const INTERVALS: u32 = 3;
/// The least that an agent may be given, whatever it asks for.
const SHORTEST_SILENCE: Duration = Duration::from_millis(10);

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
            (Some(number), Said::Attach) => {
                self.unlearn(number);
                self.agents.slot_mut(number).set_page(PageUse::Unread);
            }
            (None, Said::Goodbye { .. } | Said::Attach) => return Outcome::OutOfOrder,
        }
        Outcome::Accepted
    }

    /// Believes what an agent says of itself, within bounds.
    pub(in crate::domain::tracker) fn introduce(
        &mut self,
        number: u32,
        introduction: &Introduction,
        at: MonoTime,
    ) {
        let Introduction { name, interval, stall_after, busy_for, labels } = introduction;
        if let Some(name) = name {
            let was_known = self.agents.rest(number).name_source == NameSource::Agent
                && **self.names.get(self.agents.rest(number).name) == *name.as_str();
            if !was_known {
                self.rename(number, name.as_str(), NameSource::Agent);
                self.succeed(number, at);
            }
        }
        let of_interval = interval.map(|interval| (interval * INTERVALS).max(self.policy.stall_after));
        if let Some(asked) = stall_after.or(of_interval) {
            let granted = Some(self.granted(asked));
            let extra = self.agents.rest_mut(number).extra.get_or_insert_default();
            if std::mem::replace(&mut extra.asked, granted) != granted {
                self.note(number);
            }
            self.forget_if_promised(number);
        }
        if !labels.is_empty() && *labels != self.labels(number) {
            self.agents.rest_mut(number).extra.get_or_insert_default().labels = labels.clone();
            self.note(number);
        }
        if let Some(busy_for) = busy_for {
            let busy_until = at + (*busy_for).min(self.longest_silence());
            self.agents.rest_mut(number).extra.get_or_insert_default().busy_until = busy_until;
            self.note(number);
        }
        if self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited) {
            self.wheel.arm(number, self.first_look(number).max(at));
        }
    }

    /// The longest that an agent may be silent, whatever it asks for.
    pub(in crate::domain::tracker) fn longest_silence(&self) -> Duration {
        self.policy.longest_silence.max(self.policy.stall_after)
    }

    /// How long an agent may be silent that asked for this.
    pub(in crate::domain::tracker) fn granted(&self, asked: Duration) -> Duration {
        asked.clamp(SHORTEST_SILENCE, self.longest_silence())
    }

    /// Gives an agent another name.
    pub(in crate::domain::tracker) fn rename(&mut self, number: u32, name: &str, source: NameSource) {
        // Under the name that it gives itself it is still of its unit.
        let unit = self.unit(number).filter(|_| source == NameSource::Agent);
        let new = self.names.take(name);
        let rest = self.agents.rest_mut(number);
        rest.name_source = source;
        if unit.is_some() || rest.extra.is_some() {
            rest.extra.get_or_insert_default().unit = unit;
        }
        let old = std::mem::replace(&mut rest.name, new);
        self.names.give_back(old);
        self.apply_rules(number);
        if old != new {
            self.note(number);
        }
    }

    /// Goes by other rules and expects other agents from now on.
    ///
    /// What the rules give to agents that are there already changes in the turns that follow, a bounded number in each.
    /// An agent that was expected before keeps its time.
    pub fn handle_rules(&mut self, rules: Rules, expected: &ExpectedAgents, now: MonoTime) {
        self.policy.rules = rules;
        self.awaited.replace(expected, now, |name| self.names.is_in_use(name));
        self.unruled = 0..self.agents.slots();
    }

    /// Gives some of the agents that were there before the rules what these have for them. Whether that was all of them.
    pub(in crate::domain::tracker) fn apply_new_rules(&mut self) -> bool {
        for _ in 0..LOOKS_PER_TURN {
            let Some(number) = self.unruled.next() else { break };
            let number = u32::try_from(number).expect("slots have numbers of that size");
            if self.agents.slot(number).verdict.is_some() {
                self.apply_rules(number);
            }
        }
        self.unruled.is_empty()
    }

    /// Gives an agent what the rules have for its name.
    pub(in crate::domain::tracker) fn apply_rules(&mut self, number: u32) {
        let due = self.deadline(number);
        let rest = self.agents.rest_mut(number);
        let ruled = self.policy.rules.stall_after_for(self.names.get(rest.name));
        if ruled.is_some() || rest.extra.is_some() {
            rest.extra.get_or_insert_default().ruled = ruled;
            self.forget_if_promised(number);
            self.bring_forward(number, due);
        }
    }

    /// What an agent promises, or a rule does for it, goes before what was learned; and what is not used grows old.
    fn forget_if_promised(&mut self, number: u32) {
        if self.agents.rest(number).promised().is_some() {
            self.learned.forget(number);
        }
    }

    /// Says so if an agent was expected for so long that its absence was told.
    pub(in crate::domain::tracker) fn welcome(&mut self, number: u32) -> Option<Verdict> {
        let name = self.names.get(self.agents.rest(number).name);
        self.awaited.hear(name).then_some(Verdict::Expected)
    }

    /// Takes the place of an agent with the same name and from the same origin that is down or gone, if there is one: the
    /// series goes on, and whoever was told that it ended is told that it does.
    pub(in crate::domain::tracker) fn succeed(&mut self, number: u32, at: MonoTime) {
        let was_missing = self.welcome(number);
        if let Some(change) = self.take_place(number, at) {
            self.announce(number, change);
        } else if was_missing.is_some() {
            self.announce(number, Change { from: was_missing, ..Change::of_first_beat(at) });
        }
    }

    /// As [`Tracker::succeed`], and leaves it to the caller to say so.
    pub(in crate::domain::tracker) fn take_place(&mut self, number: u32, at: MonoTime) -> Option<Change> {
        let source = self.agents.slot(number).key.source;
        let Rest { name, name_source, .. } = *self.agents.rest(number);
        if !name_source.is_series() {
            return None;
        }
        while let Some(predecessor) = self.names.next_departed(name) {
            let slot = self.agents.slot(predecessor);
            let is_of_series = self.agents.rest(predecessor).name == name && slot.key.source == source;
            if predecessor == number || !is_of_series || !slot.has_departed() {
                continue;
            }
            let change = Change {
                predecessor: Some(self.id(predecessor)),
                ..Change::new(slot.verdict, Cause::Restarted, at, self.silence(predecessor, at))
            };
            let Rest { stalls, .. } = *self.agents.rest(predecessor);
            let mistakes = self.agents.rest(predecessor).mistakes();
            let rest = self.agents.rest_mut(number);
            rest.stalls = rest.stalls.saturating_add(stalls);
            rest.add_mistakes(mistakes);
            self.names.count_restart(name);
            self.forget(predecessor);
            return Some(change);
        }
        None
    }
}
