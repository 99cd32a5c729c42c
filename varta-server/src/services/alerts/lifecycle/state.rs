use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::WallClock;
use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::describe::sentence;
use crate::domain::tracker::{AgentId, Transition, Verdict};
use crate::services::alerts::alert::{Alert, Fingerprint, Id, Named, Subject};
use crate::services::alerts::lifecycle::agent_state::{Damping, Record};
use crate::services::alerts::lifecycle::group::Group;
use crate::services::alerts::notification::Delivery;

/// Agents that have an alert of their own at once; all others have one together.
pub(super) const MOST_SINGLES: usize = 1_000;
/// Alerts for many at once. Who falls in more incidents is told of with those that have no alert of their own.
pub(super) const MOST_GROUPS: usize = 64;
/// Ends of alerts of which somebody is still to be told. Beyond it the oldest is told nobody.
pub(super) const MOST_ENDED: usize = 4_096;
/// Agents that are well and whose falls are remembered. Beyond it those that have been well for longest are forgotten: they
/// may fall more often before they count as flapping.
const MOST_WAITING: usize = 65_536;

/// Who is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::services::alerts) struct Audience {
    /// How many Alertmanagers there are.
    pub(in crate::services::alerts) alertmanagers: usize,
    /// Whether there is a webhook.
    pub(in crate::services::alerts) webhook: bool,
}

/// All alerts, as they are to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::services::alerts) struct Board {
    pub(in crate::services::alerts) firing: Vec<Arc<Alert>>,
    /// Those that have ended, and of whose end somebody is still to be told.
    pub(in crate::services::alerts) ended: Vec<Arc<Alert>>,
}

/// See the module.
#[derive(Debug)]
pub(in crate::services::alerts) struct Book {
    pub(super) audience: Audience,
    pub(super) damping: Damping,
    /// The name of this host.
    pub(super) host: String,
    pub(super) records: HashMap<AgentKey, Record>,
    pub(super) firing: BTreeMap<Fingerprint, Arc<Alert>>,
    /// How many of those are about one agent.
    pub(super) singles: usize,
    /// Those of them that are about many.
    pub(super) groups: HashMap<Fingerprint, Group>,
    /// Which of those tells of an incident of the tracker's.
    pub(super) incidents: HashMap<NonZeroU64, Fingerprint>,
    pub(super) ended: BTreeMap<Fingerprint, Ended>,
    /// Agents that are well, by when that has been so for a whole window; the number tells apart those of one moment.
    waiting: BTreeMap<(MonoTime, u64), AgentKey>,
    waits: u64,
    pub(super) sweeps: u64,
    pub(super) sweep: Option<Sweep>,
    /// Filled by each `handle_*` and to be drained after it.
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) is_changed: bool,
    /// Ends of which nobody was told.
    pub(super) untold: u64,
}

/// What a verdict means for alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Ill,
    /// It is not judged yet, or not to be seen: what was so stays so.
    Undecided,
    Well,
}

impl Judgement {
    pub(super) fn of(transition: &Transition) -> Self {
        match transition.to {
            // It is known from before a restart and has time yet. One without a pid has had its time.
            Verdict::Expected if transition.agent.pid != 0 => Judgement::Undecided,
            Verdict::Unknown => Judgement::Undecided,
            verdict if verdict.is_alarm() => Judgement::Ill,
            Verdict::Up(_) | Verdict::Stalled | Verdict::Down | Verdict::Gone | Verdict::Expected => {
                Judgement::Well
            }
        }
    }
}

impl Book {
    pub(in crate::services::alerts) fn new(audience: Audience, damping: Damping, host: String) -> Self {
        Book {
            audience,
            damping,
            host,
            records: HashMap::new(),
            firing: BTreeMap::new(),
            singles: 0,
            groups: HashMap::new(),
            incidents: HashMap::new(),
            ended: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waits: 0,
            sweeps: 0,
            sweep: None,
            deliveries: VecDeque::new(),
            is_changed: false,
            untold: 0,
        }
    }

    /// Takes a change of verdict. `is_paused` says that the agent is not to be told of at present.
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
            self.drop_out(&AgentKey::missing(&transition.agent.name), &Ending::Came(&transition.agent), now);
        }
        if let Some(predecessor) = &transition.predecessor {
            self.succeed(predecessor, &key, transition, now);
        }
        match Judgement::of(transition) {
            Judgement::Undecided => {}
            Judgement::Ill if is_paused => self.drop_out(&key, &Ending::Paused, now),
            Judgement::Ill => self.fall(&key, transition, false, now),
            Judgement::Well => self.recover(&key, &Ending::Well(transition), now),
        }
    }

    /// Ends the alerts of single agents that are paused by now. Those of many are looked at by the next sweep.
    pub(in crate::services::alerts) fn handle_pauses(
        &mut self,
        is_paused: impl Fn(&str) -> bool,
        now: WallClock,
    ) {
        let keys = self.firing.values().filter_map(|alert| match &alert.subject {
            Subject::Agent(named) => is_paused(&named.name).then(|| named.key()),
            Subject::Incident { .. } | Subject::Many => None,
        });
        for key in keys.collect::<Vec<_>>() {
            self.drop_out(&key, &Ending::Paused, now);
        }
    }

    /// Does what follows from the time being `now`.
    pub(in crate::services::alerts) fn handle_timeout(&mut self, now: WallClock) {
        loop {
            let are_too_many = self.waiting.len() > MOST_WAITING;
            let first = self.waiting.first_entry();
            let Some(first) = first.filter(|first| are_too_many || first.key().0 <= now.mono) else { break };
            let key = first.remove();
            let Some(record) = self.records.get_mut(&key) else { continue };
            record.is_waiting = false;
            if record.is_ill {
                continue;
            }
            let well_for = now.mono.since(record.well_since);
            if well_for < self.damping.window && !are_too_many {
                self.wait(&key);
            } else {
                self.drop_out(&key, &Ending::Calm(well_for), now);
            }
        }
        let is_over = |group: &Group| group.over_at().is_some_and(|over_at| over_at <= now.mono);
        let over: Vec<_> =
            self.groups.iter().filter(|(_, group)| is_over(group)).map(|(id, _)| *id).collect();
        for fingerprint in over {
            self.update_group(fingerprint);
            self.groups.remove(&fingerprint);
            self.incidents.retain(|_, of| *of != fingerprint);
            self.end(fingerprint, &Ending::Over, now);
        }
    }

    /// When [`Book::handle_timeout`] is to be called next.
    pub(in crate::services::alerts) fn poll_timeout(&self) -> Option<MonoTime> {
        let calm = self.waiting.first_key_value().map(|((due, _), _)| *due);
        self.groups.values().filter_map(Group::over_at).chain(calm).min()
    }

    /// What the webhook is to be told next, oldest first. To be called until it gives `None` after each `handle_*`.
    pub(in crate::services::alerts) fn poll_delivery(&mut self) -> Option<Delivery> {
        self.deliveries.pop_front()
    }

    /// All alerts, if anything is different from what it was the last time.
    pub(in crate::services::alerts) fn poll_board(&mut self) -> Option<Board> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let outdated: Vec<_> =
            self.groups.iter().filter(|(_, group)| group.is_outdated).map(|(id, _)| *id).collect();
        for fingerprint in outdated {
            self.update_group(fingerprint);
        }
        Some(Board {
            firing: self.firing.values().map(Arc::clone).collect(),
            ended: self.ended.values().map(|ended| Arc::clone(&ended.alert)).collect(),
        })
    }

    /// How many ends of alerts nobody was told of, since this was last asked.
    pub(in crate::services::alerts) fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }

    /// Takes note that the webhook has been told that an alert began, or that it ended.
    pub(in crate::services::alerts) fn handle_said(&mut self, id: Id) {
        if let Some(alert) =
            self.firing.get_mut(&id.fingerprint).filter(|alert| alert.starts_at == id.starts_at)
        {
            Arc::make_mut(alert).is_said = true;
            self.is_changed = true;
        }
    }

    /// An agent came to be in alarm, or is in another way than before. `is_found` says that a sweep tells of it.
    pub(super) fn fall(&mut self, key: &AgentKey, transition: &Transition, is_found: bool, now: WallClock) {
        let record = self.records.entry(key.clone()).or_default();
        let is_news = !record.is_ill && record.fall(transition.at, self.damping);
        let (told_by, is_flapping) = (record.told_by, record.is_flapping);
        if let Some(fingerprint) = told_by {
            self.change(fingerprint, transition, is_news, now);
            return;
        }
        let told_by = self.tell(transition, is_flapping, is_found, now);
        if let Some(record) = self.records.get_mut(key) {
            record.told_by = Some(told_by);
        }
    }

    /// An agent is in alarm no more.
    pub(super) fn recover(&mut self, key: &AgentKey, ending: &Ending<'_>, now: WallClock) {
        let Some(record) = self.records.get_mut(key).filter(|record| record.is_ill) else { return };
        record.is_ill = false;
        record.well_since = now.mono;
        self.is_changed = true;
        if !record.is_flapping {
            let told_by = record.told_by.take();
            if record.is_blank() {
                self.records.remove(key);
            }
            self.release(told_by, ending, now);
        } else if let (Some(fingerprint), Ending::Well(transition)) = (record.told_by, ending) {
            self.change(fingerprint, transition, false, now);
        }
        self.wait(key);
    }

    /// Forgets an agent, and ends what tells of it.
    pub(super) fn drop_out(&mut self, key: &AgentKey, ending: &Ending<'_>, now: WallClock) {
        if let Some(record) = self.records.remove(key) {
            self.release(record.told_by, ending, now);
        }
    }

    /// An agent has taken another's place: with its falls, and if it flaps with its alert.
    fn succeed(&mut self, predecessor: &AgentId, key: &AgentKey, transition: &Transition, now: WallClock) {
        let old = AgentKey::of(predecessor);
        if old == *key {
            return;
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.touch(&old);
        }
        let Some(mut record) = self.records.remove(&old) else { return };
        self.drop_out(key, &Ending::Forgotten, now);
        let mut kept = None;
        if record.is_flapping {
            kept = record.told_by.take();
            let alert = kept.and_then(|fingerprint| self.firing.get_mut(&fingerprint));
            if let Some(alert) = alert.filter(|alert| matches!(alert.subject, Subject::Agent(_))) {
                // Its labels stay those with which it fired.
                let named = Named::new(transition, &self.host);
                Arc::make_mut(alert).subject = Subject::Agent(Box::new(named));
            }
        }
        let is_flapping = record.is_flapping;
        self.release(record.told_by, &Ending::Succeeded(&transition.agent), now);
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

    /// Puts an agent that is well among those that are looked at when a window has passed.
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

    /// An agent is not to be told of by an alert any more: its own ends, and one for many goes on as long as it has others.
    pub(super) fn release(&mut self, told_by: Option<Fingerprint>, ending: &Ending<'_>, now: WallClock) {
        let Some(fingerprint) = told_by else { return };
        self.is_changed = true;
        match self.groups.get_mut(&fingerprint) {
            Some(group) => group.leave(),
            None => self.end(fingerprint, ending, now),
        }
    }
}

/// An alert that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) alert: Arc<Alert>,
    /// The Alertmanagers that do not know it yet, by their place on the command line.
    pub(super) alertmanagers: BTreeSet<usize>,
    pub(super) webhook: bool,
}

/// Why an alert ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending<'a> {
    /// Its agent is in alarm no more.
    Well(&'a Transition),
    /// Its agent was missing, and has come.
    Came(&'a AgentId),
    /// Another process has taken its agent's place.
    Succeeded(&'a AgentId),
    /// Its agent flapped, and was well for so long.
    Calm(Duration),
    /// Its agent is not to be told of at present.
    Paused,
    /// Nobody knows when: its agent is not among those in alarm.
    NotInAlarm,
    /// Its agent has gone, and another has its pid.
    Forgotten,
    /// All whom it told of are in alarm no more.
    Over,
}

impl Ending<'_> {
    pub(super) fn summary(&self, alert: &Alert) -> String {
        let who = match &alert.subject {
            Subject::Agent(named) if named.pid == 0 => named.name.clone(),
            Subject::Agent(named) => format!("{}[{}]", named.name, named.pid),
            Subject::Incident { host, .. } => format!("what many agents of {host} fell in"),
            Subject::Many => "the alarm of many agents".to_owned(),
        };
        match self {
            Ending::Well(transition) => sentence(transition),
            Ending::Came(agent) => format!("{who} has come: it is {agent}"),
            Ending::Succeeded(agent) => format!("{who} has a successor: {agent}"),
            Ending::Calm(window) => {
                format!(
                    "{who} fell again and again, and has been well for {}",
                    humantime::format_duration(*window)
                )
            }
            Ending::Paused => format!("{who} is paused, and nothing is said of it until that is over"),
            Ending::NotInAlarm => format!("{who} is in alarm no more"),
            Ending::Forgotten => format!("{who} has gone, and another process has its pid"),
            Ending::Over => format!("{who} is over: all of them are well, or were forgotten"),
        }
    }

    pub(super) const fn transition(&self) -> Option<&Transition> {
        match self {
            Ending::Well(transition) => Some(transition),
            Ending::Came(_)
            | Ending::Succeeded(_)
            | Ending::Calm(_)
            | Ending::Paused
            | Ending::NotInAlarm
            | Ending::Forgotten
            | Ending::Over => None,
        }
    }
}

/// Agents whose verdict may change during one sweep. With more it is worth nothing, and another one begins.
const MOST_TOUCHED: usize = 65_536;

/// A sweep that is going on.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Agents of whom a change of verdict has told since it began. That is newer than what the sweep finds, or says the
    /// same.
    pub(super) touched: HashSet<AgentKey>,
    pub(super) is_spoilt: bool,
}

impl Sweep {
    pub(super) fn touch(&mut self, key: &AgentKey) {
        if self.touched.len() < MOST_TOUCHED {
            self.touched.insert(key.clone());
        } else {
            self.is_spoilt = true;
        }
    }
}
