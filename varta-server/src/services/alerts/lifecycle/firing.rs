//! The start of alerts: each agent gets one of its own, or joins a group's.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::WallClock;
use crate::domain::agent_key::AgentKey;
use crate::domain::describe::describe;
use crate::domain::tracker::Problem;
use crate::domain::tracker::Transition;
use crate::services::alerts::alert::{Alert, Fingerprint, Named, Subject};
use crate::services::alerts::annotations::{self, ACKNOWLEDGED, ESCALATED_FROM};
use crate::services::alerts::lifecycle::agent_state::FlapDetection;
use crate::services::alerts::lifecycle::ending::ResolveReason;
use crate::services::alerts::lifecycle::group;
use crate::services::alerts::lifecycle::state::{AlertState, MAX_GROUPS, MAX_SINGLES};
use crate::services::alerts::notification::{Delivery, Kind};

impl AlertState {
    /// Covers an agent by an alert of its own or by a group's, and returns its fingerprint.
    pub(super) fn tell(
        &mut self,
        problem: Problem,
        transition: &Transition,
        is_flapping: bool,
        is_found: bool,
        now: WallClock,
    ) -> Fingerprint {
        let group = self.join_group(problem, transition, is_found, now);
        let told_by = group.unwrap_or_else(|| self.tell_alone(problem, None, transition, is_flapping, now));
        if is_flapping && self.groups.contains_key(&told_by) {
            self.change(told_by, transition, true, now);
        }
        told_by
    }

    /// Whether a problem is worse than what the alert says.
    pub(super) fn is_worse(&self, fingerprint: Fingerprint, problem: Problem) -> bool {
        let known = self.firing.get(&fingerprint).and_then(|alert| alert.problem());
        known.is_some_and(|known| known < problem)
    }

    /// Moves an agent that got worse from the alert that covers it to another one, and returns that. The
    /// former ends, unless it covers others too.
    pub(super) fn escalate(
        &mut self,
        former: Fingerprint,
        problem: Problem,
        transition: &Transition,
        is_flapping: bool,
        now: WallClock,
    ) -> Fingerprint {
        // The place of an alert of its own is that of the next one.
        let freed = usize::from(!self.groups.contains_key(&former));
        let was = self.firing.get(&former).and_then(|alert| alert.problem());
        self.singles -= freed;
        let group = self.join_group(problem, transition, false, now);
        let told_by = group.unwrap_or_else(|| self.tell_alone(problem, was, transition, is_flapping, now));
        self.singles += freed;
        let is_told = !self.groups.contains_key(&told_by);
        self.release(Some(former), &ResolveReason::Worse { transition, is_told }, now);
        told_by
    }

    /// Starts an alert of its own; `was` is what a former alert about the agent said until it got worse.
    fn tell_alone(
        &mut self,
        problem: Problem,
        was: Option<Problem>,
        transition: &Transition,
        is_flapping: bool,
        now: WallClock,
    ) -> Fingerprint {
        let named = Named::new(transition, &self.host);
        let labels = named.alert_labels(problem);
        let fingerprint = Fingerprint::of(&labels);
        if self.firing.contains_key(&fingerprint) {
            // An agent that had this pid before has this alert, and flaps under another pid by now.
            return self.join(group::many(&self.host, now.wall), transition, now);
        }
        let mut annotations = annotations::of_agent(transition, now);
        if let Some(was) = was {
            annotations.insert(ESCALATED_FROM.to_owned(), was.alert_name().to_owned());
        }
        if let Some(text) = self.ack_text(&AgentKey::of(&transition.agent), problem) {
            annotations.insert(ACKNOWLEDGED.to_owned(), text);
        }
        let alert = Alert {
            labels,
            annotations,
            starts_at: now.at(transition.at),
            ends_at: None,
            subject: Subject::Agent(Box::new(named)),
            state: transition.to.as_str().to_owned(),
            cause: transition.cause.as_str().to_owned(),
            is_flapping,
            is_said: false,
        };
        self.singles += 1;
        let FlapDetection { limit, window } = self.damping;
        let text = describe(transition);
        let (kind, text) = if was.is_some() {
            (Kind::Escalated, text)
        } else if is_flapping {
            (Kind::Flapping, of_flapping(&text, limit, window))
        } else {
            (Kind::Firing, text)
        };
        self.begin(alert, kind, &text, Some(transition), now);
        fingerprint
    }

    /// The group's alert that covers an agent, if its own does not.
    fn join_group(
        &mut self,
        problem: Problem,
        transition: &Transition,
        is_found: bool,
        now: WallClock,
    ) -> Option<Fingerprint> {
        if is_found && let Some(fingerprint) = self.adopting(transition) {
            self.groups.get_mut(&fingerprint)?.reclaim(transition);
            self.is_changed = true;
            return Some(fingerprint);
        }
        let Some(incident) = transition.incident else {
            let is_full = self.singles >= MAX_SINGLES;
            return is_full.then(|| self.join(group::many(&self.host, now.wall), transition, now));
        };
        if let Some(fingerprint) = self.incidents.get(&incident.number).copied() {
            self.groups.get_mut(&fingerprint)?.join(transition, now.mono);
            self.is_changed = true;
            return Some(fingerprint);
        }
        if self.groups.len() >= MAX_GROUPS {
            return Some(self.join(group::many(&self.host, now.wall), transition, now));
        }
        let fingerprint = self.join(group::incident(problem, transition, &self.host, now), transition, now);
        self.incidents.insert(incident.number, fingerprint);
        Some(fingerprint)
    }

    /// Adds an agent to a group's alert, which starts if it does not fire yet.
    fn join(&mut self, mut alert: Alert, transition: &Transition, now: WallClock) -> Fingerprint {
        let fingerprint = Fingerprint::of(&alert.labels);
        let mut group = self.groups.remove(&fingerprint).unwrap_or_default();
        group.join(transition, now.mono);
        if !self.firing.contains_key(&fingerprint) {
            group.update(&mut alert);
            let summary = alert.annotations.get("summary").cloned().unwrap_or_default();
            self.begin(alert, Kind::Incident, &summary, None, now);
        }
        self.groups.insert(fingerprint, group);
        self.is_changed = true;
        fingerprint
    }

    fn begin(
        &mut self,
        mut alert: Alert,
        kind: Kind,
        summary: &str,
        of: Option<&Transition>,
        now: WallClock,
    ) {
        let fingerprint = Fingerprint::of(&alert.labels);
        // An undelivered end is replaced by the new start, which is another occurrence even within one
        // millisecond.
        if let Some(ended_at) = self.ended.remove(&fingerprint).and_then(|ended| ended.alert.ends_at) {
            alert.starts_at = alert.starts_at.max(ended_at.after(Duration::from_millis(1)));
        }
        if alert.annotations.contains_key(ACKNOWLEDGED) {
            alert.is_said = true;
            self.unsent += u64::from(self.audience.notices);
        } else if self.audience.notices {
            self.deliveries.push_back(Delivery::of(kind, &alert, summary, of, now.wall));
        }
        self.firing.insert(fingerprint, Arc::new(alert));
        self.is_changed = true;
    }

    /// Updates the alert that covers an agent. `is_news` means that the agent has started to flap.
    pub(super) fn change(
        &mut self,
        fingerprint: Fingerprint,
        transition: &Transition,
        is_news: bool,
        now: WallClock,
    ) {
        let FlapDetection { limit, window } = self.damping;
        let Some(alert) = self.firing.get_mut(&fingerprint) else { return };
        self.is_changed = true;
        let is_news = match self.groups.get_mut(&fingerprint) {
            Some(group) => is_news && !mem::replace(&mut group.is_flapping, true),
            None => {
                let alert = Arc::make_mut(alert);
                let before = mem::replace(&mut alert.annotations, annotations::of_agent(transition, now));
                let is_kept = |name: &str| ["since", ESCALATED_FROM, ACKNOWLEDGED].contains(&name);
                alert.annotations.extend(before.into_iter().filter(|(name, _)| is_kept(name)));
                alert.state = transition.to.as_str().to_owned();
                alert.cause = transition.cause.as_str().to_owned();
                alert.is_flapping |= is_news;
                is_news
            }
        };
        if is_news && self.audience.notices {
            let text = of_flapping(&describe(transition), limit, window);
            self.deliveries.push_back(Delivery::of(Kind::Flapping, alert, &text, Some(transition), now.wall));
        }
    }
}

fn of_flapping(text: &str, limit: usize, window: Duration) -> String {
    let window = humantime::format_duration(window);
    format!(
        "{text}. It fell {limit} times within {window}, and nothing more is said of it until it was well for as long"
    )
}
