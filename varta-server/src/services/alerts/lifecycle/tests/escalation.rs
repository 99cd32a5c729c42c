//! An agent that gets worse has a worse alert in place of the former.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::tracker::Verdict;
use crate::services::alerts::lifecycle::tests::*;

#[test]
fn who_gets_worse_has_a_worse_alert_in_place_of_the_former_and_never_a_lesser_one() {
    let mut world = World::new();
    world.becomes(7, Verdict::Stalled);
    let stalled = world.only();
    world.becomes(7, Verdict::Up(Status::Critical));
    let critical = world.only();
    // It is silent again, which is no worse.
    world.becomes(7, Verdict::Stalled);
    assert_eq!(world.only().labels, critical.labels);
    world.becomes(7, Verdict::Down);
    let down = world.only();
    let names = [&stalled, &critical, &down].map(|alert| alert.labels["alertname"].clone());
    assert_eq!(names, ["VartaAgentStalled", "VartaAgentCritical", "VartaAgentDown"]);
    let severities = [&stalled, &critical, &down].map(|alert| alert.labels["severity"].clone());
    assert_eq!(severities, ["warning", "critical", "critical"]);
    assert!([&critical, &down].iter().all(|alert| alert.instance() == stalled.instance()));
    assert_eq!(down.annotations["escalated_from"], "VartaAgentCritical");
    let ended = world.book.poll_board().map_or_else(|| world.book.ended.len(), |board| board.ended.len());
    assert_eq!(ended, 2, "both former ones have ended");
    assert!(world.book.ended.values().all(|ended| ended.alert.annotations.contains_key("escalated")));
    world.becomes(7, UP);
    assert_eq!(world.firing(), []);
    let told = [Kind::Firing, Kind::Escalated, Kind::Escalated, Kind::Resolved];
    assert_eq!(world.said, told.map(|kind| (kind, 7)));
    assert_eq!(world.book.singles, 0);
}

#[test]
fn who_gets_worse_while_it_flaps_is_told_again_and_still_flaps() {
    let mut world = World::new();
    for _ in 0..3 {
        world.becomes(7, Verdict::Stalled);
        world.becomes(7, UP);
    }
    assert_eq!(world.only().labels["alertname"], "VartaAgentStalled");
    for _ in 0..3 {
        world.becomes(7, Verdict::Down);
        world.becomes(7, UP);
    }
    assert_eq!(world.only().labels["alertname"], "VartaAgentDown");
    assert!(world.only().is_flapping);
    assert_eq!(world.said[4..], [Kind::Flapping, Kind::Escalated].map(|kind| (kind, 7)));
    world.pass(WINDOW);
    assert_eq!(world.firing(), []);
    assert_eq!(world.said[6..], [(Kind::Resolved, 7)]);
}

#[test]
fn members_of_an_incident_that_get_worse_leave_it_and_so_do_those_with_alerts_of_their_own() {
    let mut world = World::new();
    for pid in 1..=30 {
        let fallen = member(&world, pid, Verdict::Stalled, u64::from(pid >= 10));
        world.hand_in(&fallen);
    }
    // The first nine have alerts of their own; of all of them ten die, the last one within an incident.
    for pid in [1, 2, 10, 11, 12, 13, 14, 15, 16, 17] {
        let dead = member(&world, pid, Verdict::Down, if pid == 17 { 2 } else { 0 });
        world.hand_in(&dead);
    }
    let count = |world: &mut World, name: &str| world.names().iter().filter(|found| *found == name).count();
    assert_eq!(count(&mut world, "VartaAgentStalled"), 7);
    assert_eq!(count(&mut world, "VartaAgentDown"), 9);
    assert_eq!(count(&mut world, "VartaAgentsDown"), 1);
    let is_stalled = |alert: &&Arc<Alert>| alert.labels["alertname"] == "VartaAgentsStalled";
    let incident = Arc::clone(world.firing().iter().find(is_stalled).unwrap());
    assert_eq!(incident.annotations["agents"], "13");
    let escalated = |world: &World| world.said.iter().filter(|(kind, _)| *kind == Kind::Escalated).count();
    assert_eq!(escalated(&world), 9);
    // One with an alert of its own gets worse within an incident: its alert ends, and that is no recovery.
    let dead = member(&world, 3, Verdict::Down, 2);
    world.hand_in(&dead);
    assert_eq!(world.said.last(), Some(&(Kind::Escalated, 3)));
    assert_eq!(count(&mut world, "VartaAgentStalled"), 6);
    for pid in 1..=30 {
        world.becomes(pid, UP);
    }
    world.pass(Duration::from_secs(3));
    assert_eq!((world.firing().len(), world.book.singles), (0, 0));
}
