//! The state of all alerts: agents, groups, sweeps and ends that are not delivered yet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::base::clock::WallClock;
use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::Problem;
use crate::domain::tracker::{AgentId, ForgetReason, Forgotten, Transition, Verdict};
use crate::services::alerts::alert::{Alert, Fingerprint, Id, Named, Subject};
use crate::services::alerts::lifecycle::acks::Ack;
use crate::services::alerts::lifecycle::agent_state::{AgentAlertState, FlapDetection};
use crate::services::alerts::lifecycle::ending::{ResolveReason, ResolvedAlert};
use crate::services::alerts::lifecycle::group::Group;
use crate::services::alerts::notification::Delivery;

/// The most alerts about single agents at once; all further agents share one.
pub(super) const MAX_SINGLES: usize = 1_000;
/// The most groups at once. An agent of a further incident joins the alert for all others.
pub(super) const MAX_GROUPS: usize = 64;
/// The most ended alerts that are kept: those that a receiver does not have, and those that are repeated.
/// Beyond it one that all receivers have is dropped, else the oldest, which is counted.
pub(super) const MAX_RESOLVED: usize = 4_096;
/// The most healthy agents with remembered failures. Beyond it those healthy for longest are forgotten, and
/// need more failures to count as flapping.
const MAX_WAITING: usize = 65_536;

/// The most agents in alarm of which the end of a pause is noticed at once. That of others is found by the
/// next sweep.
const MAX_PAUSED: usize = 4_096;

/// The configured receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::services::alerts) struct Receivers {
    /// The numbers of the Alertmanagers.
    pub(in crate::services::alerts) alertmanagers: BTreeSet<usize>,
    /// Whether there is a receiver that gets each notification once.
    pub(in crate::services::alerts) notices: bool,
}

/// A snapshot of all alerts for the senders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::services::alerts) struct AlertSnapshot {
    pub(in crate::services::alerts) firing: Vec<Arc<Alert>>,
    /// Ended alerts that some receiver does not have yet, or that are repeated.
    pub(in crate::services::alerts) ended: Vec<Arc<Alert>>,
}

/// The state of all alerts; see [the module](super).
#[derive(Debug)]
pub(in crate::services::alerts) struct AlertState {
    pub(super) audience: Receivers,
    pub(super) damping: FlapDetection,
    /// The name of this host.
    pub(super) host: String,
    pub(super) records: HashMap<AgentKey, AgentAlertState>,
    pub(super) firing: BTreeMap<Fingerprint, Arc<Alert>>,
    /// The number of firing alerts about one agent.
    pub(super) singles: usize,
    /// The firing alerts about many.
    pub(super) groups: HashMap<Fingerprint, Group>,
    /// The alert of each incident of the tracker.
    pub(super) incidents: HashMap<NonZeroU64, Fingerprint>,
    pub(super) ended: BTreeMap<Fingerprint, ResolvedAlert>,
    /// When the first ended alert may be forgotten, of those that all receivers have.
    pub(super) forget_at: MonoTime,
    /// Healthy agents by the end of their window; the number separates equal times.
    waiting: BTreeMap<(MonoTime, u64), AgentKey>,
    waits: u64,
    /// Agents in alarm that are paused, with their names.
    paused: BTreeMap<AgentKey, Arc<str>>,
    /// Acknowledged alarms.
    pub(super) acks: BTreeMap<AgentKey, Ack>,
    pub(super) are_acks_changed: bool,
    /// Notifications that were not sent because of acknowledgements.
    pub(super) unsent: u64,
    pub(super) sweeps: u64,
    pub(super) sweep: Option<Sweep>,
    /// Filled by each `handle_*` and drained after it.
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) is_changed: bool,
    /// Ends that were dropped undelivered.
    pub(super) undelivered: u64,
}

/// The meaning of a verdict for alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Ill(Problem),
    /// Not decided yet, or not observable: the state before it remains.
    Undecided,
    Well,
}

impl Judgement {
    pub(super) fn of(transition: &Transition) -> Self {
        match transition.to {
            // An agent restored after a restart, which still has time. One without a pid has used up its
            // time.
            Verdict::Expected if transition.agent.pid != 0 => Judgement::Undecided,
            Verdict::Unknown => Judgement::Undecided,
            verdict => Problem::of(verdict).map_or(Judgement::Well, Judgement::Ill),
        }
    }
}

impl AlertState {
    pub(in crate::services::alerts) fn new(
        audience: Receivers,
        damping: FlapDetection,
        host: String,
    ) -> Self {
        AlertState {
            audience,
            damping,
            host,
            records: HashMap::new(),
            firing: BTreeMap::new(),
            singles: 0,
            groups: HashMap::new(),
            incidents: HashMap::new(),
            ended: BTreeMap::new(),
            forget_at: MonoTime::NEVER,
            waiting: BTreeMap::new(),
            waits: 0,
            paused: BTreeMap::new(),
            acks: BTreeMap::new(),
            are_acks_changed: false,
            unsent: 0,
            sweeps: 0,
            sweep: None,
            deliveries: VecDeque::new(),
            is_changed: false,
            undelivered: 0,
        }
    }

    /// Handles a transition. `is_paused` means that the agent is in maintenance.
    pub(in crate::services::alerts) fn handle_transition(
        &mut self,
        transition: &Transition,
        is_paused: bool,
        now: WallClock,
    ) {
        let key = AgentKey::of(&transition.agent);
        if let Some(sweep) = &mut self.sweep {
            sweep.touch(&key);
        }
        if !key.is_missing() {
            self.drop_out(
                &AgentKey::missing(&transition.agent.name),
                &ResolveReason::Came(&transition.agent),
                now,
            );
        }
        if let Some(predecessor) = &transition.predecessor {
            self.succeed(predecessor, &key, transition, now);
        }
        self.paused.remove(&key);
        self.review_ack(&key, Judgement::of(transition));
        match Judgement::of(transition) {
            Judgement::Undecided => {}
            Judgement::Ill(_) if is_paused => self.pause(&key, &transition.agent.name, now),
            Judgement::Ill(problem) => self.failure(&key, problem, transition, false, now),
            Judgement::Well => self.recover(&key, &ResolveReason::Well(transition), now),
        }
    }

    /// Handles an agent that the tracker has forgotten, after all its transitions. Its alert ends, unless it
    /// flaps: that lasts until it was calm, or until a user has the agent forgotten.
    pub(in crate::services::alerts) fn handle_forgotten(&mut self, forgotten: &Forgotten, now: WallClock) {
        let Forgotten { agent, reason } = forgotten;
        let key = AgentKey::of(agent);
        if let Some(sweep) = &mut self.sweep {
            sweep.touch(&key);
        }
        self.paused.remove(&key);
        self.end_ack(&key);
        match reason {
            ForgetReason::Requested => self.drop_out(&key, &ResolveReason::Forgotten(*reason), now),
            _ => self.recover(&key, &ResolveReason::Forgotten(*reason), now),
        }
    }

    /// Ends the alerts of single agents that are paused by now. Those of groups are left to the next sweep.
    /// Returns whether a pause of an agent in alarm is over, so that a sweep has something to find.
    pub(in crate::services::alerts) fn handle_pauses(
        &mut self,
        is_paused: impl Fn(&str) -> bool,
        now: WallClock,
    ) -> bool {
        let known = self.paused.len();
        self.paused.retain(|_, name| is_paused(name));
        let are_some_over = self.paused.len() < known;
        let agents = self.firing.values().filter_map(|alert| match &alert.subject {
            Subject::Agent(named) => is_paused(&named.name).then(|| (named.key(), Arc::from(&*named.name))),
            Subject::Incident { .. } | Subject::Many => None,
        });
        for (key, name) in agents.collect::<Vec<_>>() {
            self.pause(&key, &name, now);
        }
        are_some_over
    }

    /// Whether pauses matter: an alert fires, or an agent in alarm is paused.
    pub(in crate::services::alerts) fn heeds_pauses(&self) -> bool {
        !self.firing.is_empty() || !self.paused.is_empty()
    }

    /// Ends the alert of an agent that is paused, and remembers that it is in alarm.
    pub(super) fn pause(&mut self, key: &AgentKey, name: &Arc<str>, now: WallClock) {
        self.drop_out(key, &ResolveReason::Paused, now);
        if self.paused.len() < MAX_PAUSED {
            self.paused.insert(key.clone(), Arc::clone(name));
        }
    }

    /// Handles what is due at `now`.
    pub(in crate::services::alerts) fn handle_timeout(&mut self, now: WallClock) {
        loop {
            let are_too_many = self.waiting.len() > MAX_WAITING;
            let first = self.waiting.first_entry();
            let Some(first) = first.filter(|first| are_too_many || first.key().0 <= now.mono) else { break };
            let key = first.remove();
            let Some(record) = self.records.get_mut(&key) else { continue };
            record.is_waiting = false;
            if record.is_unhealthy {
                continue;
            }
            let well_for = now.mono.since(record.well_since);
            if well_for < self.damping.window && !are_too_many {
                self.wait(&key);
            } else {
                self.drop_out(&key, &ResolveReason::Calm(well_for), now);
            }
        }
        let is_over = |group: &Group| group.over_at().is_some_and(|over_at| over_at <= now.mono);
        let over: Vec<_> =
            self.groups.iter().filter(|(_, group)| is_over(group)).map(|(id, _)| *id).collect();
        for fingerprint in over {
            self.update_group(fingerprint);
            let paused = self.groups.remove(&fingerprint).map_or(0, |group| group.paused);
            self.incidents.retain(|_, of| *of != fingerprint);
            self.end(fingerprint, &ResolveReason::Over { paused }, now);
        }
        self.forget_ended(now.mono);
    }

    /// The time at which [`AlertState::handle_timeout`] is due.
    pub(in crate::services::alerts) fn poll_timeout(&self) -> Option<MonoTime> {
        let calm = self.waiting.first_key_value().map(|((due, _), _)| *due);
        let forget = (self.forget_at != MonoTime::NEVER).then_some(self.forget_at);
        self.groups.values().filter_map(Group::over_at).chain(calm).chain(forget).min()
    }

    /// The next notification for the receivers of notices, oldest first. Drained after each `handle_*`.
    pub(in crate::services::alerts) fn poll_delivery(&mut self) -> Option<Delivery> {
        self.deliveries.pop_front()
    }

    /// A snapshot of all alerts, if something changed since the last one.
    pub(in crate::services::alerts) fn poll_board(&mut self) -> Option<AlertSnapshot> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let outdated: Vec<_> =
            self.groups.iter().filter(|(_, group)| group.is_outdated).map(|(id, _)| *id).collect();
        for fingerprint in outdated {
            self.update_group(fingerprint);
        }
        Some(AlertSnapshot {
            firing: self.firing.values().map(Arc::clone).collect(),
            ended: self.ended.values().map(|ended| Arc::clone(&ended.alert)).collect(),
        })
    }

    /// Takes the number of ends that were dropped undelivered.
    pub(in crate::services::alerts) fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.undelivered)
    }

    /// Records that the receivers of notices have the start of an alert.
    pub(in crate::services::alerts) fn handle_said(&mut self, id: Id) {
        if let Some(alert) =
            self.firing.get_mut(&id.fingerprint).filter(|alert| alert.starts_at == id.starts_at)
        {
            Arc::make_mut(alert).is_said = true;
            self.is_changed = true;
        }
    }

    /// Handles an agent that comes to be in alarm, or changes its alarm. `is_found` means that a sweep found
    /// it.
    pub(super) fn failure(
        &mut self,
        key: &AgentKey,
        problem: Problem,
        transition: &Transition,
        is_found: bool,
        now: WallClock,
    ) {
        let record = self.records.entry(key.clone()).or_default();
        let is_news = !record.is_unhealthy && record.failure(transition.at, self.damping);
        let (told_by, is_flapping) = (record.told_by, record.is_flapping);
        let told_by = match told_by {
            Some(former) if self.is_worse(former, problem) => {
                self.escalate(former, problem, transition, is_flapping, now)
            }
            Some(fingerprint) => {
                self.change(fingerprint, transition, is_news, now);
                return;
            }
            None => self.tell(problem, transition, is_flapping, is_found, now),
        };
        if let Some(record) = self.records.get_mut(key) {
            record.told_by = Some(told_by);
        }
    }

    /// Handles an agent that is no longer in alarm.
    pub(super) fn recover(&mut self, key: &AgentKey, ending: &ResolveReason<'_>, now: WallClock) {
        let Some(record) = self.records.get_mut(key).filter(|record| record.is_unhealthy) else { return };
        record.is_unhealthy = false;
        record.well_since = now.mono;
        self.is_changed = true;
        if !record.is_flapping {
            let told_by = record.told_by.take();
            if record.is_blank() {
                self.records.remove(key);
            }
            self.release(told_by, ending, now);
        } else if let (Some(fingerprint), ResolveReason::Well(transition)) = (record.told_by, ending) {
            self.change(fingerprint, transition, false, now);
        }
        self.wait(key);
    }

    /// Forgets an agent, and ends its alert.
    pub(super) fn drop_out(&mut self, key: &AgentKey, ending: &ResolveReason<'_>, now: WallClock) {
        if !matches!(ending, ResolveReason::Paused) {
            self.end_ack(key);
        }
        if let Some(record) = self.records.remove(key) {
            self.release(record.told_by, ending, now);
        }
    }

    /// Moves the failures of an agent, and its alert if it flaps, to its successor.
    fn succeed(&mut self, predecessor: &AgentId, key: &AgentKey, transition: &Transition, now: WallClock) {
        let old = AgentKey::of(predecessor);
        if old == *key {
            return;
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.touch(&old);
        }
        self.end_ack(&old);
        let Some(mut record) = self.records.remove(&old) else { return };
        self.drop_out(key, &ResolveReason::Replaced, now);
        let mut kept = None;
        if record.is_flapping {
            kept = record.told_by.take();
            let alert = kept.and_then(|fingerprint| self.firing.get_mut(&fingerprint));
            if let Some(alert) = alert.filter(|alert| matches!(alert.subject, Subject::Agent(_))) {
                // Labels identify the alert and stay as they were when it fired.
                let named = Named::new(transition, &self.host);
                Arc::make_mut(alert).subject = Subject::Agent(Box::new(named));
            }
        }
        let is_flapping = record.is_flapping;
        self.release(record.told_by, &ResolveReason::Succeeded(&transition.agent), now);
        let mut record = record.successor();
        record.told_by = kept;
        record.is_flapping = is_flapping && kept.is_some();
        record.well_since = now.mono;
        if !record.is_blank() {
            self.records.insert(key.clone(), record);
            self.wait(key);
        }
        self.is_changed = true;
    }

    /// Queues a healthy agent for a check at the end of its window.
    pub(super) fn wait(&mut self, key: &AgentKey) {
        let Some(record) = self.records.get_mut(key).filter(|record| !record.is_waiting) else { return };
        record.is_waiting = true;
        self.waits += 1;
        self.waiting.insert((record.well_since + self.damping.window, self.waits), key.clone());
    }

    fn update_group(&mut self, fingerprint: Fingerprint) {
        if let (Some(group), Some(alert)) =
            (self.groups.get_mut(&fingerprint), self.firing.get_mut(&fingerprint))
        {
            group.update(Arc::make_mut(alert));
        }
    }

    /// Removes an agent from its alert: its own ends, a group's lasts while it has other members.
    pub(super) fn release(
        &mut self,
        told_by: Option<Fingerprint>,
        ending: &ResolveReason<'_>,
        now: WallClock,
    ) {
        let Some(fingerprint) = told_by else { return };
        self.is_changed = true;
        match self.groups.get_mut(&fingerprint) {
            Some(group) => {
                group.paused += u64::from(matches!(ending, ResolveReason::Paused));
                group.leave();
            }
            None => self.end(fingerprint, ending, now),
        }
    }
}

/// The most agents whose verdict may change during one sweep. With more the sweep has no result, and is
/// repeated.
const MAX_TOUCHED: usize = 65_536;

/// A sweep that is under way.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Agents with a transition since its start, which is never older than what the sweep finds.
    pub(super) touched: HashSet<AgentKey>,
    pub(super) is_spoilt: bool,
}

impl Sweep {
    pub(super) fn touch(&mut self, key: &AgentKey) {
        if self.touched.len() < MAX_TOUCHED {
            self.touched.insert(key.clone());
        } else {
            self.is_spoilt = true;
        }
    }
}
