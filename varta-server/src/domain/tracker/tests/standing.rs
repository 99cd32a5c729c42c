//! Claims about the status of agents, their labels and units, and the succession under one name.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;
use varta_proto::control::AgentName;

use crate::domain::beat::{ControlMessage, Hello, ReceivedControl};
use crate::domain::expected::Expected;
use crate::domain::labels::Labels;
use crate::domain::process::{ProcessId, ProcessPlace};
use crate::domain::tracker::tests::*;
use crate::domain::tracker::verdicts::transition::Transition;

impl World {
    fn says(&mut self, at: MonoTime, pid: u32, introduction: Hello) {
        let sender = Sender::local(pid);
        let said = ControlMessage::Hello(introduction);
        self.handle_control(&ReceivedControl { received_at: at, sender, said });
    }

    fn last_told(&mut self) -> Transition {
        std::iter::from_fn(|| self.tracker.poll_transition()).last().unwrap()
    }

    fn named(&self, name: &str) -> (usize, usize) {
        let NameCount { all, up } = self.tracker.named(name, 0..usize::MAX);
        (all, up)
    }
}

fn team(team: &str) -> Hello {
    Hello {
        name: Some(AgentName::parse("billing").unwrap()),
        labels: [("team", team)].into_iter().collect(),
        ..Hello::default()
    }
}

#[test]
fn who_stands_how_is_told_as_it_is_at_that_moment() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(1), Status::Ok));
    let agent = world.last_told().agent;
    let standing = world.tracker.status(&agent, at(2)).unwrap();
    assert_eq!((standing.verdict, standing.silence), (UP, Duration::from_secs(1)));
    assert_eq!(standing.process.map(|process| process.pid), Some(PID));
    assert!(standing.is_observed);
    world.pass(at(7));
    assert_eq!(world.tracker.status(&agent, at(7)).unwrap().verdict, Verdict::Stalled);
    let stranger = AgentId { pid: 1, ..agent };
    assert_eq!(world.tracker.status(&stranger, at(7)), None);
}

#[test]
fn nothing_is_seen_for_a_whole_deadline_after_a_blindness() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(1), Status::Ok));
    let agent = world.last_told().agent;
    world.pass(at(7));
    world.tracker.handle_observer_gap(at(7), at(9));
    let is_seen = |world: &World, now| world.tracker.status(&agent, at(now)).unwrap().is_observed;
    assert_eq!([9, 13, 14].map(|now| is_seen(&world, now)), [false, false, true]);
}

#[test]
fn a_silence_that_is_not_known_is_told_as_the_least_until_a_beat_ends_it() {
    let mut before = World::new();
    before.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
    let known = before.tracker.snapshot(0..1).next().unwrap();
    let known = AgentSnapshot {
        silent_before: Duration::from_secs(8),
        silent_at_least: true,
        name_source: NameSource::Group,
        ..known
    };
    let told = |world: &mut World| {
        let told: Vec<_> = std::iter::from_fn(|| world.tracker.poll_transition()).collect();
        told.iter()
            .map(|told| (told.to, told.silence.as_secs(), told.silence_is_at_least))
            .collect::<Vec<_>>()
    };
    let (stalled, up) = (Verdict::Stalled, UP);

    let mut world = World::new();
    assert!(world.tracker.restore(&known, Fate::Lives, MonoTime::START));
    world.pass(at(6));
    assert_eq!(told(&mut world), [(stalled, 13, true)]);
    assert!(world.tracker.snapshot(0..1).next().unwrap().silent_at_least);
    let mut handle = Handle { pid: PID, connected_at: MonoTime::START, nonce: 900 };
    world.hear(handle.next(at(7), Status::Ok));
    assert_eq!(told(&mut world), [(up, 15, true)]);
    assert!(!world.tracker.snapshot(0..1).next().unwrap().silent_at_least);
    world.pass(at(13));
    assert_eq!(told(&mut world), [(stalled, 5, false)]);

    let mut world = World::new();
    assert!(world.tracker.restore(&known, Fate::Gone, MonoTime::START));
    world.spawn_in("worker", PID + 1, 300);
    let mut successor = Handle::connect(PID + 1, at(1));
    world.hear(successor.next(at(2), Status::Ok));
    assert_eq!(told(&mut world), [(up, 10, true)], "of its predecessor");
    world.pass(at(8));
    assert_eq!(told(&mut world), [(stalled, 5, false)]);
}

#[test]
fn one_that_is_missing_is_so_until_it_comes() {
    let mut policy = Policy { stall_after: STALL_AFTER, ..Policy::default() };
    policy.expected.add(Expected::named("billing").unwrap()).unwrap();
    let mut world = World::with(policy);
    world.pass(at(61));
    let missing = world.last_told().agent;
    assert_eq!(world.tracker.status(&missing, at(61)).unwrap().verdict, Verdict::Expected);
    let mut handle = Handle::connect(PID, at(62));
    world.says(at(62), PID, team("a"));
    world.hear(handle.next(at(62), Status::Ok));
    assert_eq!(world.tracker.status(&missing, at(63)), None);
}

#[test]
fn agents_of_a_name_are_counted_by_whether_they_are_up() {
    let mut world = World::new();
    for pid in 1..=3 {
        world.spawn(pid, "worker", 100);
        world.hear(Handle::connect(pid, at(0)).next(at(pid.into()), Status::Ok));
    }
    assert_eq!((world.named("worker"), world.named("other")), ((3, 3), (0, 0)));
    world.pass(MonoTime::from_millis(7_500));
    assert_eq!(world.named("worker"), (3, 1));
    let NameCount { all, .. } = world.tracker.named("worker", 0..2);
    assert_eq!(all, 2, "in slices");
}

#[test]
fn a_change_tells_the_labels_that_the_agent_said_last() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(1), Status::Ok));
    assert_eq!(world.last_told().labels, Labels::default());
    world.says(at(1), PID, team("a"));
    world.says(at(1), PID, team("b"));
    // Labels that a Hello leaves out stay.
    world.says(at(2), PID, Hello { labels: Labels::default(), ..team("") });
    world.hear(handle.next(at(2), Status::Degraded));
    assert_eq!(world.last_told().labels.get("team"), Some("b"));
}

#[test]
fn an_agent_of_a_unit_is_of_it_under_any_name() {
    let mut world = World::new();
    world.spawn_in("billing.service", PID, 100);
    world.processes.processes.entry(PID).and_modify(|process| process.is_unit = true);
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(1), Status::Ok));
    assert_eq!(world.last_told().unit.as_deref(), Some("billing.service"));
    world.says(at(1), PID, team("a"));
    world.hear(handle.next(at(2), Status::Degraded));
    let told = world.last_told();
    assert_eq!((&*told.agent.name, told.unit.as_deref()), ("billing", Some("billing.service")));
    // A container is no unit, whatever its name is.
    world.spawn_in("billing.service", 7, 100);
    world.hear(Handle::connect(7, at(0)).next(at(3), Status::Ok));
    assert_eq!(world.last_told().unit, None);
}

#[test]
fn an_agent_is_where_its_present_process_runs() {
    let mut world = World::new();
    let runs_in = |world: &mut World, cgroup: &str, start_time| {
        world.spawn_in("billing.service", PID, start_time);
        let place = Some(ProcessPlace { cgroup: cgroup.into(), container: Some("box".into()) });
        world.processes.processes.entry(PID).and_modify(|process| process.place = place);
    };
    let seen = |world: &World| -> Vec<(String, Option<String>)> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let agents = world.tracker.agents(0..usize::MAX);
        let place = |agent: AgentView<'_>| {
            let place = agent.place?;
            Some((place.cgroup.to_string(), text(place.container.as_deref())))
        };
        agents.filter_map(place).collect()
    };
    runs_in(&mut world, "/a", 100);
    world.hear(Handle::connect(PID, at(0)).next(at(1), Status::Ok));
    assert_eq!(seen(&world), [("/a".to_owned(), Some("box".to_owned()))]);
    // Another process with this pid, in another cgroup; then one in the root.
    runs_in(&mut world, "/b", 200);
    world.hear(Handle::connect(PID, at(2)).next(at(3), Status::Ok));
    assert_eq!(seen(&world), [("/b".to_owned(), Some("box".to_owned()))]);
    world.spawn(PID, "billing", 300);
    world.hear(Handle::connect(PID, at(4)).next(at(5), Status::Ok));
    assert_eq!(seen(&world), []);
}

#[test]
fn who_takes_the_place_of_another_says_whose() {
    let mut world = World::new();
    world.spawn_in("a.service", 1, 100);
    world.hear(Handle::connect(1, at(0)).next(at(1), Status::Ok));
    let first = world.last_told().agent;
    let process = ProcessId::new(1, NonZeroU64::new(100).unwrap());
    world.tracker.handle_exit(process, ExitStatus::Exited { code: 1 }, Lineage::default(), at(2), at(2));
    assert_eq!(world.last_told().predecessor, None);
    world.spawn_in("a.service", 2, 200);
    world.hear(Handle::connect(2, at(3)).next(at(3), Status::Ok));
    let told = world.last_told();
    assert_eq!((told.cause, told.predecessor), (Cause::Restarted, Some(first)));
}

#[test]
fn labels_and_unit_are_remembered() {
    let mut world = World::new();
    world.spawn_in("billing.service", PID, 100);
    world.processes.processes.entry(PID).and_modify(|process| process.is_unit = true);
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(1), Status::Ok));
    world.says(at(1), PID, team("a"));
    let kept = world.tracker.snapshot(0..1).next().unwrap();
    assert_eq!(kept.unit, Some(Arc::from("billing.service")));
    let mut next = World::new();
    assert!(next.tracker.restore(&kept, Fate::Lives, MonoTime::START));
    next.pass(at(6));
    let told = next.last_told();
    assert_eq!((told.labels.get("team"), told.unit.as_deref()), (Some("a"), Some("billing.service")));
}
