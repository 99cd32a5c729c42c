//! Sweeps: the alert state is reconciled with all agents in alarm, as a transition may have been lost on its
//! way, and as the tracker evicts agents without one.

use std::sync::Arc;

use crate::base::clock::WallClock;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::Problem;
use crate::domain::tracker::Transition;
use crate::services::alerts::alert::{Fingerprint, Subject};
use crate::services::alerts::lifecycle::ending::ResolveReason;
use crate::services::alerts::lifecycle::group;
use crate::services::alerts::lifecycle::state::{AlertState, Judgement, MAX_SINGLES, Sweep};

impl AlertState {
    /// Starts a sweep, in place of one that is under way.
    pub(crate) fn begin_sweep(&mut self) {
        self.sweeps += 1;
        self.sweep = Some(Sweep::default());
    }

    /// Takes an agent that the sweep found in alarm or not decided yet. All transitions from before must have
    /// been handled.
    pub(crate) fn handle_found(&mut self, found: &Transition, is_paused: bool, now: WallClock) {
        let key = AgentKey::of(&found.agent);
        if self.sweep.as_ref().is_none_or(|sweep| sweep.touched.contains(&key)) {
            return;
        }
        self.review_ack(&key, Judgement::of(found));
        match Judgement::of(found) {
            Judgement::Well => return,
            Judgement::Undecided => {}
            Judgement::Ill(_) if is_paused => self.pause(&key, &found.agent.name, now),
            Judgement::Ill(problem) => {
                let known = self.records.get(&key).filter(|record| record.is_unhealthy);
                match known.and_then(|record| record.told_by) {
                    None => self.failure(&key, problem, found, true, now),
                    Some(told_by) if self.is_worse(told_by, problem) => {
                        self.failure(&key, problem, found, false, now);
                    }
                    Some(told_by) => self.promote(&key, told_by, problem, found, now),
                }
            }
        }
        self.meet(&key);
    }

    /// Takes the name of an agent that is expected, not seen, and still has time.
    pub(crate) fn handle_awaited(&mut self, name: &Arc<str>) {
        self.meet(&AgentKey::missing(name));
    }

    /// Ends a sweep over all agents: an agent that is in alarm here and was not found is so no more. Returns
    /// `false` if too many agents changed meanwhile, and nothing was concluded.
    pub(crate) fn end_sweep(&mut self, now: WallClock) -> bool {
        let Some(sweep) = self.sweep.take().filter(|sweep| !sweep.is_spoilt) else { return false };
        let records = self.records.iter();
        let lost = records.filter(|(_, record)| record.is_unhealthy && record.met_in != self.sweeps);
        let lost: Vec<_> =
            lost.map(|(key, _)| key.clone()).filter(|key| !sweep.touched.contains(key)).collect();
        self.end_unmet_acks(&sweep.touched);
        for key in lost {
            self.recover(&key, &ResolveReason::NotInAlarm, now);
        }
        for group in self.groups.values_mut() {
            group.adopts = false;
        }
        true
    }

    /// The group of the server's previous run that an agent may be a member of.
    pub(super) fn adopting(&self, found: &Transition) -> Option<Fingerprint> {
        let is_it = |fingerprint: &Fingerprint| {
            self.firing.get(fingerprint).is_some_and(|alert| group::may_adopt(alert, found))
        };
        let adopting =
            self.groups.iter().filter(|(_, group)| group.adopts).map(|(fingerprint, _)| *fingerprint);
        adopting.filter(is_it).min_by_key(|fingerprint| {
            // Incidents before all others.
            self.is_for_many(fingerprint)
        })
    }

    /// Whether the alert is the one for all agents without an alert of their own.
    fn is_for_many(&self, fingerprint: &Fingerprint) -> bool {
        self.firing.get(fingerprint).is_some_and(|alert| matches!(alert.subject, Subject::Many))
    }

    /// Gives an agent without an alert of its own one, if there is room by now.
    fn promote(
        &mut self,
        key: &AgentKey,
        told_by: Fingerprint,
        problem: Problem,
        found: &Transition,
        now: WallClock,
    ) {
        if !self.is_for_many(&told_by) || self.singles >= MAX_SINGLES {
            return;
        }
        let Some(record) = self.records.get_mut(key) else { return };
        record.told_by = None;
        self.release(Some(told_by), &ResolveReason::Over { paused: 0 }, now);
        self.failure(key, problem, found, false, now);
    }

    fn meet(&mut self, key: &AgentKey) {
        self.meet_ack(key);
        if let Some(record) = self.records.get_mut(key) {
            record.met_in = self.sweeps;
        }
    }
}
