//! The planner: decides which action is due for which agent. Transitions, outcomes of jobs and the time go
//! in; jobs come out.
//!
//! It is as pure as the tracker, and for the same reason: code that acts by itself must be testable by a
//! script of events and times. Whether an agent must still be acted on at the time of acting is verified by
//! the executor.

pub(super) mod estate;
mod spending;
#[cfg(test)]
pub(in crate::services::recovery) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::base::rate_limit::Usage;
use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::beat::Origin;
use crate::domain::tracker::{Transition, Verdict};
use crate::services::recovery::budget::Budget;
use crate::services::recovery::episode::{ActionInFlight, AttemptHistory, Episode, EpisodeState};
use crate::services::recovery::job::{ActionOutcome, Job, Refusal, RefusalNotice};
use crate::services::recovery::rule::{Action, RecoveryRule, Rules, UnhealthyState};

/// The most open episodes, and the most attempt histories. Beyond it agents are refused and counted.
pub(super) const MAX_EPISODES: usize = 65_536;
/// The delay before an action is tried again that was not possible.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The longest wait for a core dump. One that takes longer is stuck, and so is the service whose process it is.
const MAX_DUMP_WAIT: Duration = Duration::from_secs(600);
/// The time after the last attempt at which the history of an agent that never recovered is dropped.
const FORGET_AFTER: Duration = Duration::from_secs(86_400);

/// The planner; see the module.
#[derive(Debug)]
pub(crate) struct Planner {
    rules: Rules,
    budget: Budget,
    allows_remote: bool,
    spent: Usage,
    /// By the name of agents.
    groups: HashMap<Arc<str>, (Usage, Budget)>,
    cases: HashMap<AgentKey, Episode>,
    records: HashMap<AgentKey, AttemptHistory>,
    /// The waiting episodes, by the end of their wait.
    due: BTreeSet<(MonoTime, AgentKey)>,
    jobs: HashMap<u64, ActionInFlight>,
    last_job: u64,
    told: VecDeque<RefusalNotice>,
    pruned_at: MonoTime,
}

impl Planner {
    pub(crate) fn new(rules: Rules, budget: Budget, allows_remote: bool) -> Self {
        Planner {
            rules,
            budget,
            allows_remote,
            spent: Usage::default(),
            groups: HashMap::new(),
            cases: HashMap::new(),
            records: HashMap::new(),
            due: BTreeSet::new(),
            jobs: HashMap::new(),
            last_job: 0,
            told: VecDeque::new(),
            pruned_at: MonoTime::START,
        }
    }

    /// Replaces the rules and limits. Open episodes continue under their own rule.
    pub(crate) fn handle_options(&mut self, rules: Rules, budget: Budget, allows_remote: bool) {
        (self.rules, self.budget, self.allows_remote) = (rules, budget, allows_remote);
    }

    /// Handles a transition.
    pub(crate) fn handle_transition(&mut self, transition: &Transition, now: MonoTime) {
        self.prune(now);
        if let Some(predecessor) = &transition.predecessor {
            self.succeed(&AgentKey::of(predecessor), &AgentKey::of(&transition.agent), now);
        }
        if transition.from == Some(Verdict::Expected) {
            // The agent was expected, and its episode has the name alone.
            self.close(&AgentKey::missing(&transition.agent.name));
        }
        let key = AgentKey::of(&transition.agent);
        if UnhealthyState::of(transition.to).is_some() {
            self.worsen(key, transition, now);
        } else if !self.is_our_doing(&key, transition.to) {
            self.close(&key);
            if let Some(record) = self.records.get_mut(&key) {
                record.well_since.get_or_insert(now);
                record.is_final = false;
            }
        } else if let Some(case) = self.cases.get_mut(&key) {
            case.transition = Arc::new(transition.clone());
            self.pass_signals(&key, now);
        }
    }

    /// Whether a process has ended because of a signal, which may be on its way.
    fn is_our_doing(&self, key: &AgentKey, to: Verdict) -> bool {
        let is_signal = |case: &Episode| matches!(case.rule.steps[case.step].action, Action::Signal(..));
        let was_told = |case: &Episode| {
            case.was_signalled || matches!(case.stage, EpisodeState::Acting(_)) && is_signal(case)
        };
        matches!(to, Verdict::Gone | Verdict::Down) && self.cases.get(key).is_some_and(was_told)
    }

    /// Moves the history of an agent to its successor.
    fn succeed(&mut self, predecessor: &AgentKey, successor: &AgentKey, now: MonoTime) {
        self.close(predecessor);
        if let Some(record) = self.records.remove(predecessor) {
            self.records.insert(successor.clone(), AttemptHistory { well_since: Some(now), ..record });
        }
    }

    fn worsen(&mut self, key: AgentKey, transition: &Transition, now: MonoTime) {
        if let Some(record) = self.records.get_mut(&key) {
            record.well_since = None;
        }
        let is_our_doing = self.is_our_doing(&key, transition.to);
        if let Some(case) = self.cases.get_mut(&key) {
            if is_our_doing || case.rule.matches(transition) {
                case.transition = Arc::new(transition.clone());
                if transition.to == Verdict::Down {
                    self.pass_signals(&key, now);
                }
                return;
            }
            // The state is another one, for which another rule may match.
            self.close(&key);
        }
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(transition)) else { return };
        let rule = Arc::clone(rule);
        let transition = Arc::new(transition.clone());
        let AttemptHistory { attempts, .. } = self.records.get(&key).copied().unwrap_or_default();
        let is_full = self.cases.len().max(self.records.len()) >= MAX_EPISODES;
        let refusal = if rule.is_final(transition.cause) {
            Some(Refusal::FinalExitStatus)
        } else if attempts < rule.attempts {
            is_full.then_some(Refusal::TooMany)
        } else if self.give_up(&key, &transition, &rule) {
            None
        } else {
            return;
        };
        if let Some(refusal) = refusal {
            if refusal == Refusal::FinalExitStatus && !is_full {
                let before = self.records.get(&key).copied().unwrap_or_default();
                self.records.insert(key, AttemptHistory { is_final: true, tried_at: now, ..before });
            }
            self.told.push_back(RefusalNotice::new(&transition, refusal));
            return;
        }
        let next_at = self.records.get(&key).map_or(MonoTime::START, |record| record.next_at);
        // Whoever takes its place until then needs no help.
        let due = (now + rule.steps[0].wait).max(next_at).max(transition.settles_at);
        self.due.insert((due, key.clone()));
        let stage = EpisodeState::Waiting(due);
        let case = Episode {
            transition,
            rule,
            step: 0,
            stage,
            was_signalled: false,
            has_helped: false,
            is_counted: false,
            refused: Vec::new(),
            is_hopeless: false,
            dumping_since: None,
        };
        self.cases.insert(key, case);
    }

    /// Reports that no attempt has helped an agent. Whether its rule has another one later; its history says when.
    fn give_up(&mut self, key: &AgentKey, transition: &Arc<Transition>, rule: &RecoveryRule) -> bool {
        let again_after = rule.give_up_retry.filter(|_| self.cases.len() < MAX_EPISODES);
        let notice = RefusalNotice::new(transition, Refusal::GivenUp);
        self.told.push_back(RefusalNotice { again_after, ..notice });
        let Some((record, after)) = self.records.get_mut(key).zip(again_after) else { return false };
        // One attempt is left, for then.
        record.attempts = rule.attempts.saturating_sub(1);
        record.next_at = record.next_at.max(record.tried_at + after);
        true
    }

    /// Skips the signals, as the process for them has ended.
    fn pass_signals(&mut self, key: &AgentKey, now: MonoTime) {
        let Some(case) = self.cases.get_mut(key) else { return };
        let EpisodeState::Waiting(due) = case.stage else { return };
        let is_signal = |step: usize| {
            case.rule.steps.get(step).is_some_and(|step| matches!(step.action, Action::Signal(..)))
        };
        let next = (case.step..).find(|step| !is_signal(*step)).unwrap_or(case.step);
        let is_past_all = next >= case.rule.steps.len();
        if is_past_all && (case.transition.to == Verdict::Gone || (0..next).all(is_signal)) {
            // The process ended as the signal requested, or no further step can apply.
            return self.close(key);
        }
        // The wait of the first step is a grace period for the verdict, and stays.
        if next > case.step && case.step > 0 {
            case.step = next;
            let wait = case.rule.steps.get(next).map_or(Duration::ZERO, |step| step.wait);
            let at = due.min(now + wait);
            self.wait_until(key.clone(), at, now);
        }
    }

    /// Ends an episode. A running job continues, and its outcome is ignored.
    fn close(&mut self, key: &AgentKey) {
        if let Some(Episode { stage: EpisodeState::Waiting(due), .. }) = self.cases.remove(key) {
            self.due.remove(&(due, key.clone()));
        }
    }

    /// Lets the first step of an episode wait at least until this time.
    fn wait_for(&mut self, key: &AgentKey, at: MonoTime) {
        let Some(case) = self.cases.get_mut(key) else { return };
        if let EpisodeState::Waiting(due) = case.stage
            && due < at
        {
            self.due.remove(&(due, key.clone()));
            self.due.insert((at, key.clone()));
            case.stage = EpisodeState::Waiting(at);
        }
    }

    /// Sets the end of an episode's wait; past its last step, starts the next attempt.
    fn wait_until(&mut self, key: AgentKey, at: MonoTime, now: MonoTime) {
        let Some(case) = self.cases.get_mut(&key) else { return };
        if let EpisodeState::Waiting(due) = case.stage {
            self.due.remove(&(due, key.clone()));
        }
        let mut at = at;
        if case.step >= case.rule.steps.len() {
            if case.transition.to == Verdict::Gone {
                return self.close(&key);
            }
            let record = self.records.entry(key.clone()).or_default();
            record.next_at = record.next_at.max(now + case.rule.backoff_after(record.attempts));
            if case.is_hopeless {
                record.attempts = record.attempts.max(case.rule.attempts);
            }
            (case.step, case.is_counted, at) = (0, false, record.next_at);
        }
        case.stage = EpisodeState::Waiting(at);
        self.due.insert((at, key));
    }

    /// The time at which [`Planner::poll_job`] may have a job; `None` without a waiting episode.
    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A refusal to report. Drained until it returns `None`.
    pub(crate) fn poll_told(&mut self) -> Option<RefusalNotice> {
        self.told.pop_front()
    }

    /// The next job that is due. Its outcome must be passed to [`Planner::handle_outcome`].
    pub(crate) fn poll_job(&mut self, now: MonoTime) -> Option<Job> {
        while self.poll_timeout().is_some_and(|due| due <= now) {
            let (_, key) = self.due.pop_first()?;
            if let Some(job) = self.begin(&key, now) {
                return Some(job);
            }
        }
        None
    }

    fn begin(&mut self, key: &AgentKey, now: MonoTime) -> Option<Job> {
        let case = self.cases.get(key)?;
        let before = self.records.get(key).copied().unwrap_or_default();
        let (step, rule, is_first) = (case.step, Arc::clone(&case.rule), !case.is_counted);
        let name = Arc::clone(&case.transition.agent.name);
        let action = &rule.steps[step].action;
        let is_for_group = matches!(action, Action::Command(command, _) if command.is_for_group());
        if is_first && before.attempts >= rule.attempts {
            let transition = Arc::clone(&case.transition);
            if self.give_up(key, &transition, &rule) {
                let again_at = self.records.get(key).map_or(now, |record| record.next_at);
                self.wait_until(key.clone(), again_at, now);
            } else {
                self.close(key);
            }
            return None;
        }
        if let Some(refusal) = self.forbids(&case.transition, action) {
            self.told.push_back(RefusalNotice::new(&case.transition, refusal));
            self.close(key);
            return None;
        }
        let is_free = matches!(action, Action::Notify);
        if is_for_group
            && self.jobs.values().any(|doing| doing.is_for_group && doing.group.as_ref() == Some(&name))
        {
            // The running command may bring this agent back too: a unit is restarted once and not once for
            // each of its workers.
            self.wait_until(key.clone(), now + TRY_AGAIN, now);
            return None;
        }
        if !is_free && let Err((refusal, until)) = self.spend(&name, rule.budget, now) {
            self.put_off(key.clone(), refusal, until, now);
            return None;
        }
        let mut attempt = before.attempts;
        if !is_free && is_first {
            attempt += 1;
            let next_at = now + rule.debounce;
            self.records
                .insert(key.clone(), AttemptHistory { attempts: attempt, next_at, tried_at: now, ..before });
        }
        self.last_job += 1;
        let number = self.last_job;
        let before = (!is_free && is_first).then_some(before);
        self.jobs.insert(
            number,
            ActionInFlight { key: key.clone(), group: (!is_free).then_some(name), is_for_group, before },
        );
        let case = self.cases.get_mut(key)?;
        case.stage = EpisodeState::Acting(number);
        case.is_counted |= !is_free;
        Some(Job {
            number,
            transition: Arc::clone(&case.transition),
            rule,
            step,
            attempt: attempt.max(1),
            was_signalled: case.was_signalled,
            has_helped: case.has_helped,
            has_waited_for_dump: case.dumping_since.is_some_and(|since| now.since(since) >= MAX_DUMP_WAIT),
        })
    }

    /// The reason why an action on such an agent is never allowed.
    fn forbids(&self, transition: &Transition, action: &Action) -> Option<Refusal> {
        let Transition { agent, process, to, .. } = transition;
        match (action, agent.origin) {
            (Action::Notify, _) => None,
            (_, Origin::Udp(_) | Origin::SecureUdp(_)) => (!self.allows_remote).then_some(Refusal::Remote),
            // An agent that was never seen has no process; its name is configured.
            (_, Origin::Local | Origin::Notify)
                if process.is_some() || *to == Verdict::Expected && agent.pid == 0 =>
            {
                None
            }
            (_, Origin::Local | Origin::Notify | Origin::Named { .. }) => Some(Refusal::NotAttested),
        }
    }

    /// Delays the step, and reports the reason once.
    fn put_off(&mut self, key: AgentKey, refusal: Refusal, until: MonoTime, now: MonoTime) {
        let Some(case) = self.cases.get_mut(&key) else { return };
        if !case.refused.contains(&refusal) {
            case.refused.push(refusal);
            self.told.push_back(RefusalNotice::new(&case.transition, refusal));
        }
        self.wait_until(key, until.max(now + TRY_AGAIN), now);
    }

    /// Handles the outcome of a job.
    pub(crate) fn handle_outcome(&mut self, number: u64, outcome: ActionOutcome, now: MonoTime) {
        let Some(ActionInFlight { key, group, before, .. }) = self.jobs.remove(&number) else { return };
        let was_tried =
            matches!(outcome, ActionOutcome::Done | ActionOutcome::Failed | ActionOutcome::DidNotStay);
        if let Some(group) = group.filter(|_| !was_tried) {
            self.unspend(&group);
        }
        if let (false, Some(before), Some(record)) = (was_tried, before, self.records.get_mut(&key)) {
            *record = AttemptHistory { well_since: record.well_since, ..before };
        }
        let Some(case) = self.cases.get_mut(&key).filter(|case| case.stage == EpisodeState::Acting(number))
        else {
            return;
        };
        match outcome {
            ActionOutcome::Done
            | ActionOutcome::Failed
            | ActionOutcome::DidNotStay
            | ActionOutcome::Skipped => {
                case.is_hopeless |= outcome == ActionOutcome::DidNotStay;
                case.is_counted &= was_tried || before.is_none();
                match &case.rule.steps[case.step].action {
                    Action::Signal(..) => case.was_signalled |= outcome == ActionOutcome::Done,
                    Action::Command(..) => case.has_helped = outcome == ActionOutcome::Done,
                    Action::Notify => {}
                }
                case.refused.clear();
                case.dumping_since = None;
                if case.transition.to == Verdict::Gone && !case.was_signalled {
                    // The agent said goodbye by itself.
                    return self.close(&key);
                }
                case.step += 1;
                let next = case.rule.steps.get(case.step).filter(|_| outcome != ActionOutcome::Skipped);
                let wait = next.map_or(Duration::ZERO, |step| step.wait);
                let has_ended = matches!(case.transition.to, Verdict::Down | Verdict::Gone);
                self.wait_until(key.clone(), now + wait, now);
                if has_ended {
                    self.pass_signals(&key, now);
                }
            }
            ActionOutcome::Withdrawn => self.close(&key),
            ActionOutcome::Refused(refusal) if refusal.may_pass() => {
                case.is_counted &= before.is_none();
                let is_dumping = refusal == Refusal::DumpingCore;
                case.dumping_since = is_dumping.then(|| case.dumping_since.unwrap_or(now));
                self.put_off(key, refusal, now + TRY_AGAIN, now);
            }
            ActionOutcome::Refused(refusal) => {
                self.told.push_back(RefusalNotice::new(&case.transition, refusal));
                self.close(&key);
            }
        }
    }

    /// Drops state that can no longer affect a decision.
    fn prune(&mut self, now: MonoTime) {
        if now.since(self.pruned_at) < RecoveryRule::WELL_AFTER / 10 {
            return;
        }
        self.pruned_at = now;
        self.groups.retain(|_, (usage, _)| !usage.is_zero(now));
        let is_long_ago = |since: MonoTime| now.since(since) >= RecoveryRule::WELL_AFTER;
        let cases = &self.cases;
        self.records.retain(|key, record| {
            let is_over = match record.well_since {
                Some(since) => is_long_ago(since) && record.next_at <= now,
                // The tracker may have evicted the agent.
                None => now.since(record.tried_at) >= FORGET_AFTER && !cases.contains_key(key),
            };
            !is_over
        });
    }

    /// The number of open episodes.
    pub(crate) fn cases(&self) -> usize {
        self.cases.len()
    }
}
