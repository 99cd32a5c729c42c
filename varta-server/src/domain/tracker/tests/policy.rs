//! Another policy while agents are there.

use super::*;

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_secs(seconds)
}

fn policy(stall_after: u64) -> Policy {
    Policy { stall_after: Duration::from_secs(stall_after), ..Policy::default() }
}

/// A world in which one agent has beaten once, at the start, under a timeout of so many seconds.
fn world(stall_after: u64) -> World {
    let mut world = World::with(policy(stall_after));
    world.hear(Handle::connect(PID, at(0)).next(at(0), Status::Ok));
    world.transitions();
    world
}

#[test]
fn a_shorter_timeout_counts_for_the_silence_that_an_agent_is_in() {
    let mut world = world(60);
    world.tracker.handle_policy(policy(5), at(2));
    world.pass(at(4));
    assert_eq!(world.transitions().len(), 0);
    world.pass(at(5) + Duration::from_millis(50));
    let told = world.transitions();
    assert_eq!(told.iter().map(|(_, to, _)| *to).collect::<Vec<_>>(), [Verdict::Stalled]);
}

#[test]
fn a_longer_timeout_counts_too_and_the_room_for_agents_stays() {
    let mut world = world(5);
    let longer = Policy { max_agents: 1, ..policy(60) };
    world.tracker.handle_policy(longer, at(2));
    world.pass(at(59));
    assert_eq!(world.transitions().len(), 0);
    world.hear(Handle::connect(PID + 1, at(59)).next(at(59), Status::Ok));
    assert_eq!(world.transitions().len(), 1, "there is room for more than one");
    world.pass(at(60) + Duration::from_millis(50));
    assert_eq!(world.transitions().len(), 1);
}

#[test]
fn another_limit_of_rates_counts_from_the_next_beat_on() {
    let mut world = world(5);
    let mut handle = Handle::connect(PID, at(1));
    world.hear(handle.next(at(1), Status::Ok));
    world.tracker.handle_policy(Policy { max_total_rate: 1, ..policy(5) }, at(1));
    let outcomes = [1, 1, 1].map(|seconds| world.hear(handle.next(at(seconds), Status::Ok)));
    assert!(outcomes.contains(&FrameOutcome::RateLimitedGlobal), "{outcomes:?}");
}
