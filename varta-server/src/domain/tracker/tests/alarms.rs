//! Claims about the agents in alarm at present.

use std::time::Duration;

use varta_proto::Status;

use crate::domain::expected::{Expected, ExpectedAgents};
use crate::domain::tracker::tests::*;

fn alarms(world: &World, now: MonoTime) -> Vec<(u32, Verdict)> {
    let tracker = &world.tracker;
    tracker.alarms(0..tracker.slots(), now).map(|alarm| (alarm.agent.pid, alarm.to)).collect()
}

#[test]
fn who_is_in_alarm_is_found_as_it_was_told_and_nobody_else() {
    let mut world = World::new();
    let mut silent = Handle::connect(PID, at(0));
    world.hear(silent.next(at(1), Status::Ok));
    assert_eq!(alarms(&world, at(2)), []);
    world.pass(at(30));
    assert_eq!(alarms(&world, at(40)), [(PID, Verdict::Stalled)]);
    let alarm = world.tracker.alarms(0..1, at(40)).next().unwrap();
    assert_eq!((alarm.at, alarm.silence, alarm.from), (at(40), Duration::from_secs(39), None));
    assert_eq!(world.tracker.alarms(1..1_000, at(40)).count(), 0);
}

#[test]
fn those_who_are_to_come_have_time_until_they_are_missing() {
    let mut expected = ExpectedAgents::default();
    expected.add(Expected::named("late").unwrap()).unwrap();
    let mut tracker = Tracker::new(Policy { expected, ..Policy::default() });
    assert_eq!(tracker.awaited().map(|name| &**name).collect::<Vec<_>>(), ["late"]);
    assert_eq!(tracker.missing_alarms(at(1)).count(), 0);
    tracker.handle_timeout(at(3_600));
    assert_eq!(tracker.awaited().count(), 0);
    let missing: Vec<_> = tracker.missing_alarms(at(3_600)).map(|missing| missing.agent.pid).collect();
    assert_eq!(missing, [0]);
}
