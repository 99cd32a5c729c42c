//! Acknowledged alarms: their alerts go on firing, and nothing more is sent about them until the state of their
//! agents changes.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::time::WallTime;
use crate::domain::AgentPattern;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::Problem;
use crate::domain::tracker::{AgentId, Transition};
use crate::services::alerts::alert::{Fingerprint, Named, Subject};
use crate::services::alerts::annotations::ACKNOWLEDGED;
use crate::services::alerts::lifecycle::state::{AlertState, Judgement};
use crate::services::maintenance::Reason;
use crate::services::maintenance::acks::{AckedBy, MAX_ACKS};

/// An acknowledged alarm, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersistedAck {
    agent: Named,
    problem: Problem,
    uid: u32,
    reason: Option<String>,
    at: WallTime,
}

/// An acknowledged alarm.
#[derive(Debug)]
pub(super) struct Ack {
    kept: PersistedAck,
    /// The number of the last sweep that found its agent.
    met_in: u64,
}

impl PersistedAck {
    /// The text of the annotation.
    fn text(&self) -> String {
        let PersistedAck { uid, at, reason, .. } = self;
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("by uid {uid} at {at}{why}")
    }
}

/// What came of a request for one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::services::alerts) enum Acknowledged {
    Done,
    /// The agent is not in that alarm any more, or not for sure.
    NotInAlarm,
    /// There are too many.
    Full,
}

impl AlertState {
    /// Acknowledges the alarm of an agent, as the tracker has found it. All transitions from before must have
    /// been handled. Another acknowledgement of the same alarm is replaced.
    pub(in crate::services::alerts) fn acknowledge(
        &mut self,
        found: &Transition,
        by: &AckedBy,
    ) -> Acknowledged {
        let key = AgentKey::of(&found.agent);
        let Judgement::Ill(problem) = Judgement::of(found) else { return Acknowledged::NotInAlarm };
        let is_well = self.records.get(&key).is_some_and(|record| !record.is_unhealthy);
        if is_well || self.has_changed(&key, found.to.as_str()) {
            return Acknowledged::NotInAlarm;
        }
        if self.acks.len() >= MAX_ACKS && !self.acks.contains_key(&key) {
            return Acknowledged::Full;
        }
        let AckedBy { uid, ref reason, at } = *by;
        let reason = reason.as_ref().map(|reason| reason.as_str().to_owned());
        let kept = PersistedAck { agent: Named::bare(&found.agent, &self.host), problem, uid, reason, at };
        self.acks.insert(key.clone(), Ack { kept, met_in: self.sweeps });
        self.annotate(&key);
        self.are_acks_changed = true;
        self.is_changed = true;
        Acknowledged::Done
    }

    /// Ends the acknowledgements of the selected agents, and returns them.
    pub(in crate::services::alerts) fn take_back(&mut self, who: &AgentPattern) -> Vec<AgentId> {
        let selected =
            self.acks.iter().filter(|(_, ack)| who.matches(&ack.kept.agent.name, ack.kept.agent.pid));
        let selected: Vec<_> = selected.map(|(key, ack)| (key.clone(), ack.kept.agent.id())).collect();
        for (key, _) in &selected {
            self.end_ack(key);
        }
        selected.into_iter().map(|(_, agent)| agent).collect()
    }

    /// The agents whose alarms are acknowledged.
    pub(in crate::services::alerts) fn acknowledged(&self) -> Vec<AgentId> {
        self.acks.values().map(|ack| ack.kept.agent.id()).collect()
    }

    /// The agents whose alarms are acknowledged, if they are others than at the last call.
    pub(in crate::services::alerts) fn poll_acks(&mut self) -> Option<HashSet<AgentKey>> {
        std::mem::take(&mut self.are_acks_changed).then(|| self.acks.keys().cloned().collect())
    }

    /// Takes the number of notifications that were not sent because of acknowledgements.
    pub(in crate::services::alerts) fn take_unsent(&mut self) -> u64 {
        std::mem::take(&mut self.unsent)
    }

    /// Ends the acknowledgement of an agent whose state is another.
    pub(super) fn review_ack(&mut self, key: &AgentKey, judgement: Judgement) {
        let Some(ack) = self.acks.get(key) else { return };
        match judgement {
            Judgement::Undecided => {}
            Judgement::Ill(problem) if problem == ack.kept.problem => {}
            Judgement::Ill(_) | Judgement::Well => self.end_ack(key),
        }
    }

    /// Ends the acknowledgement of an agent, if there is one.
    pub(super) fn end_ack(&mut self, key: &AgentKey) {
        if self.acks.remove(key).is_none() {
            return;
        }
        self.are_acks_changed = true;
        self.is_changed = true;
        if let Some(alert) = self.own_alert(key).and_then(|fingerprint| self.firing.get_mut(&fingerprint)) {
            Arc::make_mut(alert).annotations.remove(ACKNOWLEDGED);
        }
    }

    /// Ends the acknowledgements of agents that a sweep did not find in alarm.
    pub(super) fn end_unmet_acks(&mut self, touched: &HashSet<AgentKey>) {
        let unmet = self.acks.iter().filter(|(key, ack)| ack.met_in != self.sweeps && !touched.contains(key));
        let unmet: Vec<_> = unmet.map(|(key, _)| key.clone()).collect();
        for key in unmet {
            self.end_ack(&key);
        }
    }

    /// Records that the sweep has found an agent.
    pub(super) fn meet_ack(&mut self, key: &AgentKey) {
        if let Some(ack) = self.acks.get_mut(key) {
            ack.met_in = self.sweeps;
        }
    }

    /// The text of the annotation, if the alarm of an agent is acknowledged.
    pub(super) fn ack_text(&self, key: &AgentKey, problem: Problem) -> Option<String> {
        self.acks.get(key).filter(|ack| ack.kept.problem == problem).map(|ack| ack.kept.text())
    }

    /// All acknowledgements, for the file.
    pub(in crate::services::alerts) fn kept_acks(&self) -> Vec<PersistedAck> {
        self.acks.values().map(|ack| ack.kept.clone()).collect()
    }

    /// Restores the acknowledgements of the server's previous run, before its alerts. Returns how many are
    /// invalid.
    pub(in crate::services::alerts) fn restore_acks(&mut self, kept: Vec<PersistedAck>) -> usize {
        let mut senseless = 0;
        for kept in kept {
            let is_reason = |reason: &String| Reason::parse(reason).is_ok();
            if self.acks.len() < MAX_ACKS && kept.reason.as_ref().is_none_or(is_reason) {
                self.acks.insert(kept.agent.key(), Ack { kept, met_in: self.sweeps });
            } else {
                senseless += 1;
            }
        }
        self.are_acks_changed = true;
        senseless
    }

    /// Writes the annotation into the agent's own alert, if it has one.
    fn annotate(&mut self, key: &AgentKey) {
        let Some(text) = self.acks.get(key).map(|ack| ack.kept.text()) else { return };
        if let Some(alert) = self.own_alert(key).and_then(|fingerprint| self.firing.get_mut(&fingerprint)) {
            Arc::make_mut(alert).annotations.insert(ACKNOWLEDGED.to_owned(), text);
        }
    }

    /// Whether the alert of an agent says that it is in another state by now.
    fn has_changed(&self, key: &AgentKey, state: &str) -> bool {
        let alert = self.own_alert(key).and_then(|fingerprint| self.firing.get(&fingerprint));
        alert.is_some_and(|alert| alert.state != state)
    }

    /// The alert that is about this agent alone.
    fn own_alert(&self, key: &AgentKey) -> Option<Fingerprint> {
        let fingerprint = self.records.get(key)?.told_by?;
        let is_own = matches!(self.firing.get(&fingerprint)?.subject, Subject::Agent(_));
        is_own.then_some(fingerprint)
    }
}
