//! Incidents: many agents of one origin that fell together. The tracker says which falls belong together; here it is kept
//! who they were, who is still in alarm, and when the last of them was well again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::time::WallTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::beat::Origin;
use crate::domain::tracker::{AgentId, Problem, Transition, Verdict};

/// The most incidents that are kept; the oldest that are over make room.
const MAX_KEPT: usize = 64;
/// The most agents of one incident that are kept. Beyond it they are counted.
const MAX_MEMBERS: usize = 1_000;
/// The most agents that are shown of one incident in a list.
const MAX_SHOWN: usize = 100;
/// The latest falls that belong to no incident yet: more than make one.
const MAX_FALLS: usize = 64;

/// The incidents. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Incidents(Arc<Mutex<Kept>>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The newest last.
    incidents: VecDeque<Incident>,
    /// The newest last.
    falls: VecDeque<Fall>,
    /// How often something has changed.
    changes: u64,
    /// The number of the last change before which some were missed, so that some who count as in alarm may be well.
    #[serde(skip)]
    missed_before: Option<u64>,
}

/// An incident.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Incident {
    /// The tracker's number of it.
    pub(super) number: u64,
    origin: Origin,
    /// The verdict that they came to, by its name and index.
    state: String,
    pub(super) began: WallTime,
    /// When the last of them was well, replaced or forgotten; `None` before that.
    pub(super) ended: Option<WallTime>,
    /// All falls, with those that are not kept.
    falls: u64,
    /// How many of them were falls of agents that had fallen in it before.
    again: u64,
    /// In the order in which they fell first.
    members: Vec<Member>,
    /// The place of each among them.
    places: HashMap<AgentKey, usize>,
    /// How many of them are in alarm.
    in_alarm: usize,
}

/// An agent of an incident, with its first fall in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Member {
    fall: Fall,
    is_in_alarm: bool,
}

/// An agent that fell.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Fall {
    agent: AgentId,
    state: String,
    cause: String,
    at: WallTime,
    /// The number of the change, of this server.
    #[serde(skip)]
    change: u64,
}

impl Incidents {
    /// Follows a change of a verdict, which has this number and came at this time.
    pub(super) fn apply(&self, change: &Transition, number: u64, at: WallTime) {
        let mut kept = self.lock();
        if let Some(predecessor) = &change.predecessor {
            kept.end_of(&AgentKey::of(predecessor), at);
        }
        let key = AgentKey::of(&change.agent);
        let is_in_alarm = Problem::of(change.to).is_some() && change.successor.is_none();
        // What is not decided yet stays as it was.
        if !is_in_alarm && change.to != Verdict::Unknown {
            kept.end_of(&key, at);
        }
        if !is_in_alarm {
            return;
        }
        let fall = Fall {
            agent: change.agent.clone(),
            state: change.to.as_str().to_owned(),
            cause: change.cause.as_str().to_owned(),
            at,
            change: number,
        };
        match change.incident {
            Some(incident) => kept.join(incident.number.get(), incident.agents.into(), fall),
            None => {
                kept.falls.push_back(fall);
                if kept.falls.len() > MAX_FALLS {
                    kept.falls.pop_front();
                }
            }
        }
    }

    /// Notes that the tracker has forgotten an agent.
    pub(super) fn forget(&self, agent: &AgentId, at: WallTime) {
        self.lock().end_of(&AgentKey::of(agent), at);
    }

    /// Notes that changes were missed before the one of this number.
    pub(super) fn miss(&self, number: u64) {
        self.lock().missed_before = Some(number);
    }

    /// Whether they are to be compared with who is in alarm, by [`Incidents::review`].
    pub(super) fn is_unsure(&self) -> bool {
        let kept = self.lock();
        kept.missed_before.is_some() && kept.incidents.iter().any(|incident| incident.in_alarm > 0)
    }

    /// Takes those out that nobody has told are well: who is not among `present`, all who were in alarm once every change
    /// up to the one of this number was made. Who fell later stays.
    pub(super) fn review(&self, present: &HashSet<AgentKey>, number: u64, at: WallTime) {
        let mut kept = self.lock();
        if kept.missed_before.is_some_and(|missed| missed <= number) {
            kept.missed_before = None;
        }
        let members = kept.incidents.iter().flat_map(|incident| &incident.members);
        let fallen = members.filter(|member| member.is_in_alarm && member.fall.change <= number);
        let keys = fallen.map(|member| AgentKey::of(&member.fall.agent));
        let well: Vec<_> = keys.filter(|key| !present.contains(key)).collect();
        for key in well {
            kept.end_of(&key, at);
        }
    }

    /// Those that are wanted, the newest first.
    pub(super) fn newest_first(&self, is_wanted: impl Fn(&Incident) -> bool) -> Vec<Incident> {
        self.lock().incidents.iter().rev().filter(|incident| is_wanted(incident)).cloned().collect()
    }

    /// How often something has changed.
    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// What the next server is to show.
    pub(super) fn leave(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(&*self.lock()).ok()
    }

    /// Shows what another server has left, before anything has happened.
    pub(super) fn inherit(&self, left: &[u8]) {
        let Ok(mut left) = postcard::from_bytes::<Kept>(left) else { return };
        keep_newest(&mut left.incidents, MAX_KEPT);
        keep_newest(&mut left.falls, MAX_FALLS);
        left.incidents.iter_mut().for_each(Incident::bound);
        // What changed between the two is not known here.
        left.missed_before = Some(0);
        *self.lock() = left;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the oldest beyond so many.
fn keep_newest<T>(all: &mut VecDeque<T>, most: usize) {
    all.drain(..all.len().saturating_sub(most));
}

impl Kept {
    /// Adds a fall to the incident of this number, which has so many by now.
    fn join(&mut self, number: u64, falls: u64, fall: Fall) {
        self.changes += 1;
        // A fall into a worse state may be part of another incident.
        self.end_of(&AgentKey::of(&fall.agent), fall.at);
        let known = self.incidents.iter().rposition(|incident| incident.number == number);
        let place = known.unwrap_or_else(|| self.open(number, falls, &fall));
        let incident = &mut self.incidents[place];
        incident.falls = incident.falls.max(falls);
        incident.ended = None;
        incident.add(fall);
    }

    /// Opens an incident with those that fell before it was one, and returns its place.
    fn open(&mut self, number: u64, falls: u64, fall: &Fall) -> usize {
        if self.incidents.len() >= MAX_KEPT {
            let over = self.incidents.iter().position(|incident| incident.ended.is_some());
            self.incidents.remove(over.unwrap_or(0));
        }
        let (origin, state) = (fall.agent.origin, fall.state.clone());
        let is_part = |earlier: &&Fall| earlier.agent.origin == origin && earlier.state == state;
        let before = usize::try_from(falls.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut earlier: Vec<_> = self.falls.iter().rev().filter(is_part).take(before).cloned().collect();
        earlier.reverse();
        let began = earlier.first().map_or(fall.at, |first| first.at);
        let mut incident = Incident {
            number,
            origin,
            state,
            began,
            ended: None,
            falls,
            again: 0,
            members: Vec::new(),
            places: HashMap::new(),
            in_alarm: 0,
        };
        self.falls.retain(|fall| fall.agent.origin != origin || fall.state != incident.state);
        earlier.into_iter().for_each(|fall| incident.add(fall));
        self.incidents.push_back(incident);
        self.incidents.len() - 1
    }

    /// Takes an agent out that is well, replaced or forgotten.
    fn end_of(&mut self, key: &AgentKey, at: WallTime) {
        self.falls.retain(|fall| AgentKey::of(&fall.agent) != *key);
        for incident in &mut self.incidents {
            if incident.has_recovered(key) {
                self.changes += 1;
                if incident.in_alarm == 0 {
                    incident.ended = Some(at);
                }
            }
        }
    }
}

impl Incident {
    /// Adds a fall. Of an agent that has fallen before the first one stays.
    fn add(&mut self, fall: Fall) {
        let key = AgentKey::of(&fall.agent);
        match self.places.get(&key) {
            Some(place) => {
                let member = &mut self.members[*place];
                member.fall.change = fall.change;
                self.again += 1;
                self.in_alarm += usize::from(!member.is_in_alarm);
                member.is_in_alarm = true;
            }
            None if self.members.len() < MAX_MEMBERS => {
                self.places.insert(key, self.members.len());
                self.members.push(Member { fall, is_in_alarm: true });
                self.in_alarm += 1;
            }
            None => {}
        }
    }

    /// Takes an agent out of those in alarm. Whether it was one of them.
    fn has_recovered(&mut self, key: &AgentKey) -> bool {
        let place = self.places.get(key).copied();
        let Some(member) = place.and_then(|place| self.members.get_mut(place)) else { return false };
        let was = std::mem::take(&mut member.is_in_alarm);
        self.in_alarm -= usize::from(was);
        was
    }

    /// Drops what is beyond the bounds, and counts anew: of one that another server has left.
    fn bound(&mut self) {
        self.members.truncate(MAX_MEMBERS);
        let keys = self.members.iter().map(|member| AgentKey::of(&member.fall.agent));
        self.places = keys.zip(0..).collect();
        self.in_alarm = self.members.iter().filter(|member| member.is_in_alarm).count();
    }

    /// Whether one of its agents that are kept is wanted.
    pub(super) fn has(&self, is_wanted: impl Fn(&AgentId) -> bool) -> bool {
        self.members.iter().any(|member| is_wanted(&member.fall.agent))
    }

    /// Whether it is the incident of this start, host and state, as an alert has it.
    pub(super) fn is_of(&self, began: WallTime, host: &str, state: &str, own: &str) -> bool {
        let last = self.members.last().map_or(self.began, |last| last.fall.at);
        self.state == state
            && self.origin.host(own) == host
            && (self.began.as_millis()..=last.as_millis() + 1).contains(&began.as_millis())
    }

    /// It as a JSON object, at a server of this host.
    pub(super) fn to_json(&self, own: &str) -> Value {
        let mut causes = BTreeMap::<&str, u64>::new();
        for Member { fall, .. } in &self.members {
            *causes.entry(&fall.cause).or_default() += 1;
        }
        let member = |Member { fall, is_in_alarm }: &Member| {
            json!({
                "id": fall.agent.instance(own), "name": &*fall.agent.name, "at": fall.at.to_string(),
                "cause": fall.cause, "in_alarm": is_in_alarm,
            })
        };
        let members: Vec<_> = self.members.iter().take(MAX_SHOWN).map(member).collect();
        json!({
            "number": self.number, "host": self.origin.host(own), "state": self.state,
            "began": self.began.to_string(), "ended": self.ended.map(|ended| ended.to_string()),
            "agents": self.falls.saturating_sub(self.again).max(self.members.len() as u64), "in_alarm": self.in_alarm,
            "causes": causes, "first": members.first().map(|first| &first["id"]), "members": members,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use varta_proto::Status;

    use super::*;
    use crate::base::time::MonoTime;
    use crate::domain::tracker::tests::sample;
    use crate::domain::tracker::{Cause, Incident as Part};

    fn wall(seconds: u64) -> WallTime {
        WallTime::default().after(Duration::from_secs(seconds))
    }

    /// The fall of the agent with this pid, as the tracker counts it.
    fn fall(incidents: &Incidents, pid: u32, part: Option<(u64, u32)>) {
        let part = part.map(|(number, agents)| Part {
            number: NonZeroU64::new(number).unwrap(),
            agents,
            open_until: MonoTime::START,
        });
        let change = sample::transition("worker").pid(pid).to(Verdict::Stalled, Cause::Silent).incident(part);
        incidents.apply(&change, pid.into(), wall(pid.into()));
    }

    fn well(incidents: &Incidents, pid: u32, at: u64) {
        let change = sample::transition("worker").pid(pid).to(Verdict::Up(Status::Ok), Cause::Recovered);
        incidents.apply(&change, at, wall(at));
    }

    fn shown(incidents: &Incidents) -> Vec<Value> {
        incidents.newest_first(|_| true).iter().map(|incident| incident.to_json("web-1")).collect()
    }

    #[test]
    fn those_that_fell_before_it_was_one_are_in_it_and_it_is_over_when_the_last_is_well() {
        let incidents = Incidents::default();
        for pid in 1..10 {
            fall(&incidents, pid, None);
        }
        well(&incidents, 3, 9);
        assert!(shown(&incidents).is_empty());
        for pid in 10..=12 {
            fall(&incidents, pid, Some((1, pid)));
        }
        let open = &shown(&incidents)[0];
        assert_eq!(
            (&open["agents"], &open["in_alarm"], &open["ended"]),
            (&json!(12), &json!(11), &Value::Null)
        );
        assert_eq!(
            (&open["first"], &open["began"]),
            (&json!("worker[1]@web-1"), &json!(wall(1).to_string()))
        );
        for pid in (1..=12).filter(|pid| *pid != 3) {
            assert_eq!(shown(&incidents)[0]["ended"], Value::Null);
            well(&incidents, pid, 20 + u64::from(pid));
        }
        let over = &shown(&incidents)[0];
        assert_eq!((&over["in_alarm"], &over["ended"]), (&json!(0), &json!(wall(32).to_string())));
        assert!(over["members"].as_array().unwrap().iter().all(|member| member["in_alarm"] == false));
    }

    #[test]
    fn whoever_recovered_unseen_is_taken_out_by_a_review() {
        let incidents = Incidents::default();
        for pid in 10..=12 {
            fall(&incidents, pid, Some((1, pid)));
        }
        assert!(!incidents.is_unsure());
        incidents.miss(15);
        let eleven = AgentKey::of(&sample::transition("worker").pid(11).agent);
        // A list from before pid 12 fell, and from before changes were missed.
        incidents.review(&HashSet::from([eleven.clone()]), 11, wall(50));
        assert_eq!(shown(&incidents)[0]["in_alarm"], 2);
        assert!(incidents.is_unsure());
        incidents.review(&HashSet::from([eleven]), 15, wall(55));
        assert_eq!(shown(&incidents)[0]["in_alarm"], 1);
        assert!(!incidents.is_unsure());
        incidents.review(&HashSet::new(), 16, wall(60));
        assert_eq!(shown(&incidents)[0]["ended"], wall(60).to_string());
    }

    #[test]
    fn whoever_falls_again_in_an_incident_counts_once_and_stays_where_it_fell_first() {
        let incidents = Incidents::default();
        for pid in 1..=12 {
            fall(&incidents, pid, (pid >= 10).then_some((1, pid)));
        }
        well(&incidents, 4, 20);
        assert_eq!(shown(&incidents)[0]["in_alarm"], 11);
        fall(&incidents, 4, Some((1, 13)));
        let again = &shown(&incidents)[0];
        assert_eq!((&again["agents"], &again["in_alarm"]), (&json!(12), &json!(12)));
        let members = again["members"].as_array().unwrap();
        assert_eq!(members.len(), 12);
        assert_eq!((&members[3]["id"], &members[3]["in_alarm"]), (&json!("worker[4]@web-1"), &json!(true)));
    }

    #[test]
    fn they_and_their_agents_are_bounded_and_go_over_to_another_server() {
        let incidents = Incidents::default();
        for pid in 10..=2_000 {
            fall(&incidents, pid, Some((1, pid)));
        }
        let first = &shown(&incidents)[0];
        assert_eq!((&first["agents"], &first["in_alarm"]), (&json!(2_000), &json!(MAX_MEMBERS)));
        assert_eq!(first["members"].as_array().unwrap().len(), MAX_SHOWN);
        for number in 2..=2 * MAX_KEPT as u64 {
            fall(&incidents, 10, Some((number, 10)));
        }
        assert_eq!(shown(&incidents).len(), MAX_KEPT);
        let next = Incidents::default();
        next.inherit(&incidents.leave().unwrap());
        assert_eq!(shown(&next), shown(&incidents));
        assert!(next.is_unsure());
        next.inherit(b"senseless");
        assert_eq!(shown(&next), shown(&incidents));
    }
}
