//! The rules of the alert lifecycle, on virtual time.

mod acks;
mod chance;
mod escalation;
mod receivers;
mod restarts;
mod sweeps;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use super::*;
use crate::base::clock::WallClock;
use crate::base::time::MonoTime;
use crate::domain::tracker::tests::sample;
use crate::domain::tracker::{Cause, Incident, Twin};
use crate::domain::tracker::{Transition, Verdict};
use crate::services::alerts::alert::Texts;
use crate::services::alerts::alert::{Alert, Id};
use crate::services::alerts::lifecycle::resolve::REPEAT_FOR;
use crate::services::alerts::lifecycle::state::{
    AlertSnapshot, AlertState, MAX_RESOLVED, MAX_SINGLES, Receivers,
};
use crate::services::alerts::notification::Kind;

const UP: Verdict = Verdict::Up(Status::Ok);
const WINDOW: Duration = Duration::from_secs(600);

/// An alert state with one Alertmanager and a receiver of notices, and its clock.
struct World {
    book: AlertState,
    seconds: u64,
    /// The notifications for the receivers of notices: kind and pid, in order.
    said: Vec<(Kind, u32)>,
}

impl World {
    fn new() -> Self {
        let audience = Receivers { alertmanagers: [0].into(), notices: true };
        let book = AlertState::new(audience, FlapDetection { limit: 3, window: WINDOW }, "here".to_owned());
        World { book, seconds: 10, said: Vec::new() }
    }

    fn now(&self) -> WallClock {
        let wall = std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + self.seconds);
        WallClock::new(MonoTime::from_secs(self.seconds), wall)
    }

    fn transition(&self, pid: u32, to: Verdict) -> Transition {
        let cause = match to {
            Verdict::Up(_) => Cause::Recovered,
            Verdict::Down => Cause::Killed { signal: 9 },
            Verdict::Stalled | Verdict::Gone | Verdict::Unknown | Verdict::Expected => Cause::Idle,
        };
        sample::transition("worker").pid(pid).to(to, cause).at(self.now().mono).last(Status::Ok, 0, 3)
    }

    /// Handles a transition one second after the step before it.
    fn becomes(&mut self, pid: u32, to: Verdict) {
        self.seconds += 1;
        let transition = self.transition(pid, to);
        self.hand_in(&transition);
    }

    fn hand_in(&mut self, transition: &Transition) {
        self.book.handle_transition(transition, false, self.now());
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.seconds += time.as_secs();
        self.book.handle_timeout(self.now());
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(delivery) = self.book.poll_delivery() {
            let body: serde_json::Value = serde_json::from_str(&delivery.body).unwrap();
            assert_eq!(body["version"], 1);
            assert_eq!(body["kind"], delivery.kind.as_str());
            let pid = body["agent"]["pid"].as_u64().unwrap_or(0);
            self.said.push((delivery.kind, u32::try_from(pid).unwrap()));
        }
    }

    fn firing(&mut self) -> Vec<Arc<Alert>> {
        self.book.is_changed = true;
        self.book.poll_board().unwrap().firing
    }

    fn only(&mut self) -> Arc<Alert> {
        let firing = self.firing();
        assert_eq!(firing.len(), 1, "{firing:?}");
        Arc::clone(&firing[0])
    }

    fn names(&mut self) -> Vec<String> {
        self.firing().iter().map(|alert| alert.labels["alertname"].clone()).collect()
    }
}

#[test]
fn an_alert_fires_once_keeps_its_labels_and_ends_once() {
    let mut world = World::new();
    world.becomes(7, Verdict::Up(Status::Critical));
    let first = world.only();
    assert_eq!((&*first.labels["alertname"], &*first.labels["severity"]), ("VartaAgentCritical", "critical"));
    world.becomes(7, Verdict::Stalled);
    let second = world.only();
    assert_eq!((&second.labels, second.starts_at), (&first.labels, first.starts_at));
    assert_eq!(second.annotations["state"], "stalled");
    assert_eq!(second.annotations["since"], first.annotations["since"]);
    world.becomes(7, UP);
    world.becomes(7, UP);
    assert_eq!(world.firing(), []);
    assert_eq!(world.said, [(Kind::Firing, 7), (Kind::Resolved, 7)]);
    let ended = &world.book.ended.values().next().unwrap().alert;
    assert_eq!((&ended.labels, ended.starts_at), (&first.labels, first.starts_at));
    assert_eq!(ended.ends_at, Some(world.now().wall.before(Duration::from_secs(1))));
}

#[test]
fn what_an_agent_says_of_itself_is_a_label_and_never_one_of_ours() {
    let mut world = World::new();
    let mut fallen = world.transition(7, Verdict::Down);
    fallen.labels =
        [("pid", "1"), ("team", "payments"), ("state", "fine"), ("label_pid", "2"), ("instance", "other")]
            .into_iter()
            .collect();
    fallen.agent.twin = Twin::from_number(2).unwrap();
    world.hand_in(&fallen);
    let expected = [
        ("agent", "worker"),
        ("alertname", "VartaAgentDown"),
        ("host", "here"),
        ("instance", "worker[7]#2@here"),
        ("label_instance", "other"),
        ("label_label_pid", "1"),
        ("label_pid", "2"),
        ("label_state", "fine"),
        ("pid", "7"),
        ("severity", "critical"),
        ("team", "payments"),
        ("transport", "unix"),
        ("twin", "2"),
    ];
    let expected: Texts = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(world.only().labels, expected);
}

#[test]
fn neither_a_blind_moment_nor_a_degraded_agent_is_an_alarm_and_blindness_ends_none() {
    let mut world = World::new();
    for verdict in [Verdict::Unknown, Verdict::Up(Status::Degraded), Verdict::Gone] {
        world.becomes(7, verdict);
    }
    assert_eq!(world.firing(), []);
    world.becomes(7, Verdict::Up(Status::Critical));
    world.becomes(7, Verdict::Unknown);
    world.becomes(7, Verdict::Stalled);
    assert_eq!(world.said, [(Kind::Firing, 7)]);
    world.becomes(7, Verdict::Gone);
    assert_eq!(world.firing(), []);
}

#[test]
fn one_that_falls_again_and_again_is_told_once_and_ends_when_it_was_well_for_a_window() {
    let mut world = World::new();
    for _ in 0..10 {
        world.becomes(7, Verdict::Stalled);
        world.becomes(7, UP);
    }
    let told = [Kind::Firing, Kind::Resolved, Kind::Firing, Kind::Resolved, Kind::Flapping];
    assert_eq!(world.said, told.map(|kind| (kind, 7)));
    assert!(world.only().is_flapping);
    world.pass(WINDOW / 2);
    world.becomes(7, Verdict::Stalled);
    world.becomes(7, UP);
    world.pass(WINDOW - Duration::from_secs(1));
    world.only();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.firing(), []);
    assert_eq!(world.said[5..], [(Kind::Resolved, 7)]);
    assert!(world.book.records.is_empty(), "nothing is kept of it");
}

#[test]
fn who_falls_now_and_then_does_not_flap_and_is_forgotten() {
    let mut world = World::new();
    for _ in 0..10 {
        world.becomes(7, Verdict::Stalled);
        world.becomes(7, UP);
        world.pass(WINDOW / 2);
    }
    assert!(world.said.iter().all(|(kind, _)| matches!(kind, Kind::Firing | Kind::Resolved)));
    world.pass(WINDOW);
    assert!(world.book.records.is_empty() && world.book.poll_timeout().is_none());
}

#[test]
fn a_successor_ends_the_alert_and_inherits_the_falls() {
    let mut world = World::new();
    // A service that its manager restarts each time it dies.
    for pid in 1..=9 {
        world.becomes(pid, Verdict::Down);
        world.seconds += 1;
        let mut restarted = world.transition(pid + 1, UP);
        restarted.cause = Cause::Restarted;
        restarted.predecessor = Some(world.transition(pid, UP).agent);
        world.hand_in(&restarted);
    }
    let told =
        [(Kind::Firing, 1), (Kind::Resolved, 1), (Kind::Firing, 2), (Kind::Resolved, 2), (Kind::Flapping, 3)];
    assert_eq!(world.said, told);
    assert_eq!(world.only().labels["pid"], "3", "the labels stay those with which it fired");
    world.pass(WINDOW);
    assert_eq!(world.firing(), []);
    assert_eq!(world.said.len(), 6);
}

#[test]
fn a_missing_agent_has_no_pid_and_its_alert_ends_when_it_comes() {
    let mut world = World::new();
    let mut missing = world.transition(0, Verdict::Expected);
    missing.cause = Cause::NeverSeen;
    world.hand_in(&missing);
    let labels = &world.only().labels;
    assert!(!labels.contains_key("pid") && !labels.contains_key("transport"), "{labels:?}");
    world.becomes(7, UP);
    assert_eq!(world.firing(), []);
    assert_eq!(world.said.len(), 2);
}

fn member(world: &World, pid: u32, to: Verdict, number: u64) -> Transition {
    let incident =
        NonZeroU64::new(number).map(|number| Incident { number, agents: pid, open_until: MonoTime::START });
    world.transition(pid, to).incident(incident)
}

#[test]
fn those_that_fall_together_are_one_alert_that_ends_with_the_last_of_them() {
    let mut world = World::new();
    for pid in 1..=100 {
        let number = u64::from(pid >= 10);
        let fallen = member(&world, pid, Verdict::Stalled, number);
        world.hand_in(&fallen);
    }
    let names = world.names();
    assert_eq!(names.iter().filter(|name| *name == "VartaAgentsStalled").count(), 1);
    assert_eq!(names.len(), 10);
    let is_group = |alert: &&Arc<Alert>| alert.labels["alertname"] == "VartaAgentsStalled";
    let incident = Arc::clone(world.firing().iter().find(is_group).unwrap());
    assert_eq!(incident.annotations["agents"], "91");
    assert_eq!(incident.annotations["agents_in_all"], "100");
    assert_eq!(incident.annotations["causes"], "idle 91");
    assert_eq!((&*incident.labels["host"], &*incident.labels["state"]), ("here", "stalled"));
    for pid in 1..=99 {
        world.becomes(pid, UP);
    }
    assert_eq!(world.names(), ["VartaAgentsStalled"]);
    world.becomes(100, UP);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.firing(), []);
    let told = |kind| world.said.iter().filter(|(said, _)| *said == kind).count();
    assert_eq!((told(Kind::Firing), told(Kind::Resolved), told(Kind::Incident)), (9, 9, 2));
}

#[test]
fn beyond_the_most_alerts_of_their_own_agents_have_one_together() {
    let mut world = World::new();
    for pid in 1..=1_500 {
        let fallen = world.transition(pid, Verdict::Down);
        world.hand_in(&fallen);
    }
    let names = world.names();
    assert_eq!(names.len(), MAX_SINGLES + 1);
    let many = names.iter().position(|name| name == "VartaManyAgentsUnhealthy").unwrap();
    assert_eq!(world.firing()[many].annotations["agents"], "500");
    for pid in 1..=1_500 {
        world.becomes(pid, UP);
    }
    world.pass(Duration::from_secs(3));
    assert_eq!(world.firing(), []);
    assert_eq!(world.book.singles, 0);
}

#[test]
fn who_is_paused_is_not_told_of() {
    let mut world = World::new();
    let fallen = world.transition(7, Verdict::Down);
    world.book.handle_transition(&fallen, true, world.now());
    assert_eq!(world.firing(), []);
    world.becomes(8, Verdict::Down);
    assert!(!world.book.handle_pauses(|name| name == "worker", world.now()));
    world.settle();
    assert_eq!(world.firing(), []);
    assert_eq!(world.said, [(Kind::Firing, 8), (Kind::Paused, 8)], "which is no recovery");
    let ended = world.book.ended.values().next().unwrap();
    assert!(
        ended.alert.annotations.contains_key("paused") && !ended.alert.annotations.contains_key("resolved")
    );
    assert!(world.book.records.is_empty() && world.book.heeds_pauses());
    world.becomes(7, UP);
    assert!(world.book.handle_pauses(|_| false, world.now()), "8 is still in alarm");
    assert!(!world.book.handle_pauses(|_| false, world.now()) && !world.book.heeds_pauses());
}

#[test]
fn an_incident_whose_members_are_paused_is_not_told_to_be_well() {
    let mut world = World::new();
    for pid in 1..=3 {
        let fallen = member(&world, pid, Verdict::Stalled, 1);
        world.hand_in(&fallen);
    }
    world.becomes(1, UP);
    world.book.begin_sweep();
    for pid in [2, 3] {
        let found = world.transition(pid, Verdict::Stalled);
        world.book.handle_found(&found, true, world.now());
    }
    assert!(world.book.end_sweep(world.now()));
    world.pass(Duration::from_secs(3));
    let ended = world.book.ended.values().next().unwrap();
    assert!(ended.alert.annotations["paused"].contains("2 of them are paused"), "{ended:?}");
}

#[test]
fn the_end_of_an_alert_is_kept_until_everybody_knows_it() {
    let mut world = World::new();
    world.becomes(7, Verdict::Down);
    let id = Id::of(&world.only());
    world.becomes(7, UP);
    let other = Id { starts_at: id.starts_at.after(Duration::from_secs(1)), ..id };
    world.book.handle_ended(other, 0);
    world.book.handle_ended(id, 0);
    world.pass(REPEAT_FOR);
    assert_eq!(world.book.poll_board().unwrap().ended.len(), 1, "the webhook does not know it");
    world.book.handle_said_ended(id);
    world.pass(Duration::ZERO);
    assert_eq!(world.book.poll_board().unwrap(), AlertSnapshot::default());
    assert_eq!((world.book.poll_board(), world.book.poll_timeout()), (None, None));
}

#[test]
fn an_end_that_everybody_knows_is_repeated_for_a_quarter_of_an_hour() {
    let mut world = World::new();
    world.becomes(7, Verdict::Down);
    let id = Id::of(&world.only());
    world.becomes(7, UP);
    world.pass(WINDOW);
    let ended = world.book.poll_board().unwrap().ended;
    world.book.handle_ended(id, 0);
    world.book.handle_said_ended(id);
    let left = REPEAT_FOR - WINDOW;
    assert_eq!(world.book.poll_timeout(), Some(world.now().mono + left));
    world.pass(left - Duration::from_secs(1));
    assert_eq!(world.book.poll_board().unwrap().ended, ended, "it is the same end");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.book.poll_board().unwrap().ended, []);
    assert_eq!(world.book.poll_timeout(), None);
}

#[test]
fn one_that_fires_anew_before_its_end_was_told_is_another_time() {
    let mut world = World::new();
    let fallen = world.transition(7, Verdict::Down);
    world.hand_in(&fallen);
    let first = world.only();
    let up = world.transition(7, UP);
    world.hand_in(&up);
    world.hand_in(&fallen);
    let second = world.only();
    assert_eq!(first.labels, second.labels);
    assert!(second.starts_at > first.starts_at);
    assert!(world.book.ended.is_empty(), "it fires, and nobody needs to know that it did not for a moment");
}

#[test]
fn ends_that_nobody_takes_are_bounded_and_counted() {
    let mut world = World::new();
    let most = u32::try_from(MAX_RESOLVED).unwrap();
    for pid in 1..=most + 5 {
        let (fallen, up) = (world.transition(pid, Verdict::Down), world.transition(pid, UP));
        world.hand_in(&fallen);
        world.hand_in(&up);
    }
    assert_eq!((world.book.ended.len(), world.book.take_untold()), (MAX_RESOLVED, 5));
    // Those that all receivers have make room first, and are not missed.
    let ids: Vec<_> = world.book.ended.values().rev().take(10).map(|ended| Id::of(&ended.alert)).collect();
    for id in &ids {
        world.book.handle_ended(*id, 0);
        world.book.handle_said_ended(*id);
    }
    for pid in 10_001..=10_010 {
        let (fallen, up) = (world.transition(pid, Verdict::Down), world.transition(pid, UP));
        world.hand_in(&fallen);
        world.hand_in(&up);
    }
    assert_eq!((world.book.ended.len(), world.book.take_untold()), (MAX_RESOLVED, 0));
    assert!(ids.iter().all(|id| !world.book.ended.contains_key(&id.fingerprint)));
}
