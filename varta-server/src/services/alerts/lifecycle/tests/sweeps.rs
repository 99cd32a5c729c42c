//! Sweeps repair lost transitions, and never override newer ones.

use std::sync::Arc;

use crate::domain::tracker::{ForgetReason, Forgotten, Transition, Verdict};
use crate::services::alerts::lifecycle::state::MAX_SINGLES;
use crate::services::alerts::lifecycle::tests::*;

impl World {
    fn sweep(&mut self, found: &[Transition]) {
        self.book.begin_sweep();
        for found in found {
            self.book.handle_found(found, false, self.now());
        }
        assert!(self.book.end_sweep(self.now()));
        self.settle();
    }
}

#[test]
fn what_was_missed_fires_and_what_was_forgotten_ends() {
    let mut world = World::new();
    world.becomes(7, Verdict::Stalled);
    let before = world.only();
    world.seconds += 60;
    let [seven, eight] = [7, 8].map(|pid| world.transition(pid, Verdict::Stalled));
    world.sweep(&[seven.clone(), eight.clone()]);
    assert_eq!(world.said, [(Kind::Firing, 7), (Kind::Firing, 8)]);
    assert!(world.firing().contains(&before), "what goes on goes on as it was");
    world.sweep(&[eight]);
    assert_eq!(world.said[2..], [(Kind::Resolved, 7)]);
    world.sweep(&[]);
    assert_eq!(world.firing(), []);
}

#[test]
fn who_is_not_judged_yet_neither_fires_nor_ends() {
    let mut world = World::new();
    world.becomes(7, Verdict::Up(Status::Critical));
    let mut missing = world.transition(0, Verdict::Expected);
    missing.agent.name = Arc::from("missing");
    world.hand_in(&missing);
    for verdict in [Verdict::Expected, Verdict::Unknown] {
        world.book.begin_sweep();
        for pid in [7, 8] {
            let found = world.transition(pid, verdict);
            world.book.handle_found(&found, false, world.now());
        }
        world.book.handle_awaited(&Arc::from("missing"));
        assert!(world.book.end_sweep(world.now()));
    }
    assert_eq!(world.firing().len(), 2);
    world.sweep(&[missing]);
    assert_eq!(world.firing().len(), 1);
}

#[test]
fn a_change_of_verdict_is_newer_than_the_sweep_in_which_it_comes() {
    let mut world = World::new();
    world.becomes(1, Verdict::Stalled);
    world.book.begin_sweep();
    // One recovers and one fails, and the sweep saw both as they were before.
    let seen = world.transition(1, Verdict::Stalled);
    world.becomes(1, UP);
    world.becomes(2, Verdict::Stalled);
    world.book.handle_found(&seen, false, world.now());
    assert!(world.book.end_sweep(world.now()));
    world.settle();
    assert_eq!(world.said, [(Kind::Firing, 1), (Kind::Resolved, 1), (Kind::Firing, 2)]);
}

#[test]
fn what_got_worse_unheard_escalates() {
    let mut world = World::new();
    world.becomes(1, Verdict::Stalled);
    let found = [world.transition(1, Verdict::Down)];
    world.sweep(&found);
    world.sweep(&found);
    assert_eq!(world.said, [(Kind::Firing, 1), (Kind::Escalated, 1)]);
    assert_eq!(world.only().labels["alertname"], "VartaAgentDown");
}

#[test]
fn a_sweep_in_which_too_much_changes_is_worth_nothing() {
    let mut world = World::new();
    world.becomes(1, Verdict::Stalled);
    world.book.begin_sweep();
    for pid in 2..70_000 {
        let up = world.transition(pid, UP);
        world.book.handle_transition(&up, false, world.now());
    }
    assert!(!world.book.end_sweep(world.now()));
    world.only();
}

#[test]
fn a_pause_ends_what_tells_of_an_agent_and_after_it_a_sweep_fires_it() {
    let mut world = World::new();
    world.becomes(7, Verdict::Stalled);
    let found = world.transition(7, Verdict::Stalled);
    world.book.begin_sweep();
    world.book.handle_found(&found, true, world.now());
    assert!(world.book.end_sweep(world.now()));
    assert_eq!(world.firing(), []);
    world.sweep(&[found]);
    world.only();
}

#[test]
fn who_had_no_place_for_an_alert_of_its_own_gets_one_when_there_is() {
    let mut world = World::new();
    let all: Vec<_> = (1..=1_001).map(|pid| world.transition(pid, Verdict::Down)).collect();
    for fallen in &all {
        world.hand_in(fallen);
    }
    world.becomes(1, UP);
    world.sweep(&all[1..]);
    world.pass(Duration::from_secs(3));
    let names = world.names();
    assert_eq!(names.len(), MAX_SINGLES);
    assert!(names.iter().all(|name| name == "VartaAgentDown"));
}

#[test]
fn one_that_flaps_and_is_well_is_not_ended_by_a_sweep() {
    let mut world = World::new();
    for _ in 0..3 {
        world.becomes(7, Verdict::Stalled);
        world.becomes(7, UP);
    }
    world.sweep(&[]);
    assert!(world.only().is_flapping);
    world.pass(WINDOW);
    assert_eq!(world.firing(), []);
}

/// The agent of the worker with this pid, as it is forgotten.
fn forgotten(world: &World, pid: u32, reason: ForgetReason) -> Forgotten {
    Forgotten { agent: world.transition(pid, UP).agent, reason }
}

#[test]
fn the_alert_of_a_forgotten_agent_ends_at_once_and_says_why() {
    for (reason, said) in [
        (ForgetReason::Requested, "worker[7] was forgotten: a user asked for it"),
        (ForgetReason::Expired, "worker[7] was forgotten: it has not beaten for as long as it is kept"),
        (ForgetReason::Evicted, "worker[7] was forgotten: its room was needed for another"),
    ] {
        let mut world = World::new();
        world.becomes(7, Verdict::Down);
        world.becomes(8, Verdict::Down);
        let found = world.transition(7, Verdict::Down);
        // The answer to a sweep that is under way may be from before.
        world.book.begin_sweep();
        let event = forgotten(&world, 7, reason);
        world.book.handle_forgotten(&event, world.now());
        world.book.handle_found(&found, false, world.now());
        world.settle();
        assert_eq!(world.said, [(Kind::Firing, 7), (Kind::Firing, 8), (Kind::Resolved, 7)]);
        assert_eq!(world.only().labels["pid"], "8");
        let ended = &world.book.ended.values().next().unwrap().alert;
        assert!(ended.annotations["resolved"].starts_with(said), "{:?}", ended.annotations);
    }
}

#[test]
fn the_alert_of_an_agent_that_flaps_outlasts_its_room_and_not_a_request() {
    let mut world = World::new();
    for _ in 0..3 {
        world.becomes(7, Verdict::Stalled);
        world.becomes(7, UP);
    }
    world.becomes(7, Verdict::Down);
    for (reason, firing) in [(ForgetReason::Expired, 1), (ForgetReason::Requested, 0)] {
        let event = forgotten(&world, 7, reason);
        world.book.handle_forgotten(&event, world.now());
        world.settle();
        assert_eq!(world.firing().len(), firing, "{reason:?}");
    }
}
