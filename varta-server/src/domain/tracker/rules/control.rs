//! Control messages and rules: the names and timeouts of agents, and their goodbyes.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::base::limits::MAX_DURATION;
use crate::base::rate_limit::RateLimit;
use crate::base::time::MonoTime;
use crate::domain::beat::{ControlMessage, Hello, Origin, ReceivedControl, Sender};
use crate::domain::expected::ExpectedAgents;
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::identity::Processes;
use crate::domain::rules::{ProgressRule, Rules};
use crate::domain::tracker::agents::agent::{AskedTimeout, IndexKey, PageUse};
use crate::domain::tracker::agents::names::NameSource;
use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::detection::adaptive::ArrivalHistories;
use crate::domain::tracker::policy::Policy;
use crate::domain::tracker::state::{LOOKS_PER_TURN, Tracker};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The minimum stall timeout that an agent gets, whatever it requests.
const MIN_SILENCE: Duration = Duration::from_millis(10);

impl Tracker {
    /// Handles a control datagram, and returns its outcome. It moves no deadline by itself: only work proves
    /// that an agent works.
    pub fn handle_control(
        &mut self,
        control: &ReceivedControl,
        processes: &mut impl Processes,
    ) -> FrameOutcome {
        let ReceivedControl { received_at: at, sender, ref said } = *control;
        let Sender { origin, pid, lane } = sender;
        let known =
            self.sources.find(origin).and_then(|source| self.agents.find(IndexKey { source, pid, lane }));
        match (known, said) {
            (Some(number), ControlMessage::Hello(introduction)) => {
                if let Some(limited) = self.limit(number, at) {
                    return limited;
                }
                // The next beat under this pid may be that of another process, which says its name first.
                if self.agents.slot(number).has_departed() {
                    self.waiting.put(sender, introduction.clone());
                } else {
                    let old = Arc::clone(self.names.get(self.agents.rest(number).name));
                    if self.introduce(number, introduction, at) {
                        if self.has_jobs() {
                            self.note_renamed(number, &old, at);
                        }
                        self.replace_predecessor(number, at, processes);
                    }
                }
            }
            (None, ControlMessage::Hello(introduction)) => self.waiting.put(sender, introduction.clone()),
            (Some(number), ControlMessage::Goodbye { nonce, timestamp, reason }) => {
                let last = Session { nonce: *nonce, timestamp: *timestamp };
                self.handle_goodbye(number, last, Cause::Goodbye { reason: *reason }, at);
            }
            (Some(number), ControlMessage::Attach) => {
                self.forget_arrivals(number);
                self.agents.slot_mut(number).set_page(PageUse::Unread);
            }
            (known, ControlMessage::Notification(notification)) => {
                return self.handle_notification(known, sender, notification, at, processes);
            }
            (_, ControlMessage::Report(report)) => {
                return match origin {
                    Origin::Named { uid } => self.handle_report(uid, report, at),
                    Origin::Local | Origin::Notify | Origin::Udp(_) | Origin::SecureUdp(_) => {
                        FrameOutcome::Unattested
                    }
                };
            }
            (Some(number), ControlMessage::Said { words, child }) => {
                if let Some(limited) = self.limit(number, at) {
                    return limited;
                }
                self.note_words(number, words);
                if let Some(child) = child {
                    self.agents.rest_mut(number).extra.get_or_insert_default().child = Some(*child);
                }
            }
            (None, ControlMessage::Goodbye { .. } | ControlMessage::Attach | ControlMessage::Said { .. }) => {
                return FrameOutcome::OutOfOrder;
            }
        }
        FrameOutcome::Accepted
    }

    /// Applies what an agent says of itself in a Hello, within bounds. Returns whether it took another name.
    pub(super) fn introduce(&mut self, number: u32, introduction: &Hello, at: MonoTime) -> bool {
        let Hello { name, interval, stall_after, busy_for, no_progress_after, labels, uid } = introduction;
        if self.has_jobs()
            && uid.is_some()
            && self.agents.rest(number).extra.as_ref().is_none_or(|extra| extra.uid != *uid)
        {
            self.agents.rest_mut(number).extra.get_or_insert_default().uid = *uid;
        }
        let other_name = name.as_ref().filter(|name| {
            let rest = self.agents.rest(number);
            rest.name_source != NameSource::Agent || **self.names.get(rest.name) != *name.as_str()
        });
        if let Some(name) = other_name {
            self.rename(number, name.as_str(), NameSource::Agent);
        }
        let requested = stall_after.map(|asked| AskedTimeout::Requested(self.granted(asked)));
        let three = interval.map(|interval| interval.saturating_mul(AskedTimeout::INTERVALS));
        if let Some(asked) = requested.or(three.map(|asked| AskedTimeout::Intervals(self.granted(asked)))) {
            let extra = self.agents.rest_mut(number).extra.get_or_insert_default();
            if extra.asked.replace(asked) != Some(asked) {
                self.note(number);
            }
            self.forget_if_promised(number);
        }
        if let Some(after) = no_progress_after {
            self.declare_progress(number, *after);
        }
        if !labels.is_empty() && *labels != self.labels(number) {
            self.agents.rest_mut(number).extra.get_or_insert_default().labels = labels.clone();
            self.note(number);
        }
        if let Some(busy_for) = busy_for {
            self.allow_silence(number, *busy_for, at);
        }
        if self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited) {
            self.wheel.arm(number, self.first_check(number).max(at));
        }
        other_name.is_some()
    }

    /// The maximum silence of an agent, whatever it requests.
    pub(super) fn longest_silence(&self) -> Duration {
        self.policy.longest_silence.max(self.policy.stall_after)
    }

    /// The stall timeout of an agent that requested this.
    pub(super) fn granted(&self, asked: Duration) -> Duration {
        asked.clamp(MIN_SILENCE, self.longest_silence())
    }

    /// The stall timeout of an agent of this origin that requested this. Of a named agent it is what its user has
    /// said: nobody but the user knows when to expect the next report.
    pub(super) fn granted_to(&self, origin: Origin, asked: Duration) -> Duration {
        match origin {
            Origin::Named { .. } => asked.clamp(MIN_SILENCE, MAX_DURATION),
            Origin::Local | Origin::Notify | Origin::Udp(_) | Origin::SecureUdp(_) => self.granted(asked),
        }
    }

    /// Gives an agent another name.
    pub(super) fn rename(&mut self, number: u32, name: &str, source: NameSource) {
        // Under a name that it gives itself an agent still belongs to its unit.
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

    /// Replaces the rules and the expected agents.
    ///
    /// The rules apply to agents that exist already in the turns that follow, to a bounded number in each. An
    /// agent that was expected before keeps its deadline.
    pub fn handle_rules(&mut self, rules: Rules, expected: &ExpectedAgents, now: MonoTime) {
        self.policy.rules = rules;
        self.expected.replace(expected, now, |name| self.names.is_in_use(name));
        self.rules_pending = 0..self.agents.slots();
    }

    /// The number of expected agents that are not awaited, because a user has had them forgotten.
    pub fn expected_forgotten(&self) -> usize {
        self.expected.forgotten(|name| self.names.is_in_use(name))
    }

    /// Replaces the policy, but for the maximum number of agents, for which memory is laid out at the start. What was
    /// learned of the agents' beats is forgotten if the arrival policy is another.
    ///
    /// Agents that exist are judged by it as their turn comes: some in each turn, all within a few.
    pub fn handle_policy(&mut self, policy: Policy, now: MonoTime) {
        let max_agents = self.policy.max_agents;
        let Policy { rules, expected, .. } = &policy;
        let (rules, expected) = (rules.clone(), expected.clone());
        let former = mem::replace(&mut self.policy, Policy { max_agents, ..policy });
        self.agent_rate = RateLimit::unlimited_if_zero(self.policy.max_beat_rate);
        self.total_rate = RateLimit::unlimited_if_zero(self.policy.max_total_rate);
        if former.arrival != self.policy.arrival {
            self.adaptive_timeouts = ArrivalHistories::new(self.policy.arrival);
        }
        self.jobs.replace(&self.policy.jobs);
        self.deadlines_are_sooner |=
            former.arrival != self.policy.arrival || self.policy.stall_after < former.stall_after;
        self.handle_rules(rules, &expected, now);
    }

    /// Applies new rules to some of the agents that existed before them. Returns whether those were all.
    pub(in crate::domain::tracker) fn apply_new_rules(&mut self) -> bool {
        for _ in 0..LOOKS_PER_TURN {
            let Some(number) = self.rules_pending.next() else { break };
            let number = u32::try_from(number).expect("slots have numbers of that size");
            if self.agents.slot(number).verdict.is_some() {
                self.apply_rules(number);
                if self.deadlines_are_sooner {
                    self.check_anew(number);
                }
                self.reschedule_forgetting(number);
            }
        }
        let is_done = self.rules_pending.is_empty();
        self.deadlines_are_sooner &= !is_done;
        is_done
    }

    /// Schedules the check of an agent by its deadline under the present policy.
    fn check_anew(&mut self, number: u32) {
        if self.agents.slot(number).verdict.is_some_and(Verdict::is_awaited) {
            self.wheel.arm(number, self.first_check(number));
        }
    }

    /// Applies new times for which agents are kept.
    fn reschedule_forgetting(&mut self, number: u32) {
        if let Some(verdict @ (Verdict::Stalled | Verdict::Down | Verdict::Gone)) =
            self.agents.slot(number).verdict
        {
            self.wheel.arm(number, self.forget_at(number, verdict));
        }
    }

    /// Applies the rules for an agent's name.
    pub(super) fn apply_rules(&mut self, number: u32) {
        let due = self.deadline(number);
        let rest = self.agents.rest_mut(number);
        let name = self.names.get(rest.name);
        let ruled = self.policy.rules.stall_after_for(name);
        let progress = self.policy.rules.progress_for(name);
        if ruled.is_some() || progress != ProgressRule::default() || rest.extra.is_some() {
            let extra = rest.extra.get_or_insert_default();
            extra.ruled = ruled;
            extra.progress.ruled = progress;
            self.forget_if_promised(number);
            self.watch_progress(number);
            self.reschedule_earlier(number, due);
        }
    }

    /// A timeout by request or by rule takes precedence over what was learned; and what is not used becomes
    /// stale.
    pub(super) fn forget_if_promised(&mut self, number: u32) {
        if self.agents.rest(number).requested_timeout().is_some() {
            self.adaptive_timeouts.forget(number);
        }
    }

    /// Marks an agent as seen. Returns its former verdict if it was expected and reported as missing.
    pub(super) fn mark_seen(&mut self, number: u32) -> Option<Verdict> {
        let name = self.names.get(self.agents.rest(number).name);
        self.expected.hear(name).then_some(Verdict::Expected)
    }
}
