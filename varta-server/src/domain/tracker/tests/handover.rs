//! Claims about a tracker that goes on from the state of another.

use std::time::Duration;

use varta_proto::Status;
use varta_proto::control::AgentName;

use crate::base::Glob;
use crate::domain::beat::{ControlMessage, Hello, ReceivedControl};
use crate::domain::rules::{Rule, Rules};
use crate::domain::tracker::detection::arrival::{ArrivalPolicy, Bounds, Kind};
use crate::domain::tracker::tests::*;

const TENTH: Duration = Duration::from_millis(100);

fn policy() -> Policy {
    let bounds = Bounds { mistake_every: Some(Duration::from_secs(3_600)), ..Bounds::default() };
    let arrival = ArrivalPolicy { kind: Kind::Chen(bounds), ..ArrivalPolicy::default() };
    Policy { stall_after: STALL_AFTER, arrival, max_beat_rate: 0, ..Policy::default() }
}

impl World {
    /// Goes on with another tracker, to which the state has passed as bytes.
    pub(super) fn hand_over(&mut self, policy: Policy, now: MonoTime) {
        let bytes = postcard::to_allocvec(&self.tracker.state()).unwrap();
        let state: TrackerState = postcard::from_bytes(&bytes).unwrap();
        self.tracker = Tracker::resume(policy, state, now).unwrap();
        self.check();
    }
}

/// A world in which agents of many kinds beat, fall silent, end and come back; after each second that `hands_over`
/// names, another tracker goes on.
fn story(hands_over: impl Fn(u64) -> bool) -> (Vec<(u32, Verdict, Cause)>, Vec<String>) {
    let mut world = World::with(policy());
    let mut handles: Vec<_> = (1..=20_u32)
        .map(|pid| {
            world.spawn(pid, if pid % 2 == 0 { "even" } else { "odd" }, u64::from(pid) + 100);
            Handle::connect(pid, at(0))
        })
        .collect();
    world.spawn_in("unit", 20, 500);
    let hello = Hello {
        name: Some(AgentName::parse("named").unwrap()),
        stall_after: Some(Duration::from_secs(3)),
        labels: [("team", "a")].into_iter().collect(),
        ..Hello::default()
    };
    // Before its first beat.
    let control =
        ReceivedControl { received_at: at(1), sender: Sender::local(7), said: ControlMessage::Hello(hello) };
    world.handle_control(&control);
    let mut transitions = Vec::new();
    for second in 1..60 {
        for tenth in 0..10 {
            let now = at(second) + TENTH * tenth;
            world.pass(now);
            for handle in &mut handles {
                // Each falls silent for a while, and the last for good.
                let is_silent = second / 5 == u64::from(handle.pid) / 2 || handle.pid == 20 && second > 9;
                let beats_now = handle.pid % 3 == 0 || tenth == 0;
                if beats_now && !is_silent {
                    let mut beat =
                        handle.next(now, if second % 7 == 0 { Status::Degraded } else { Status::Ok });
                    if handle.pid > 15 && handle.pid < 20 {
                        beat.sender = Sender::udp(([10, 0, 0, 1], 4_000).into(), handle.pid);
                    }
                    world.hear(beat);
                }
            }
        }
        let now = at(second) + TENTH * 9;
        if second == 30 {
            world.tracker.handle_observer_gap(at(29), at(30));
        }
        if hands_over(second) {
            // What waits to be polled does not pass on.
            transitions.extend(world.transitions());
            world.hand_over(policy(), now);
            assert!(world.transitions().is_empty(), "nothing happens by it");
        }
    }
    let views = world.tracker.agents(0..usize::MAX).map(|agent| format!("{agent:?}")).collect();
    transitions.extend(world.transitions());
    // Who falls in the same moment falls in any order.
    transitions.sort_by_key(|(pid, ..)| *pid);
    (transitions, views)
}

#[test]
fn whoever_goes_on_comes_to_the_same_verdicts_and_knows_the_same() {
    let (transitions, views) = story(|_| false);
    assert!(transitions.len() > 40, "{transitions:?}");
    for hands_over in [|second: u64| second % 10 == 3, |_| true] {
        let (found, found_views) = story(hands_over);
        assert_eq!(found, transitions);
        assert_eq!(found_views, views);
    }
}

#[test]
fn the_new_policy_counts_for_agents_that_are_there() {
    let mut world = World::with(policy());
    let mut handle = Handle::connect(PID, at(0));
    world.pass(at(1));
    world.hear(handle.next(at(1), Status::Ok));
    world.transitions();
    let mut rules = Rules::default();
    let name = Glob::parse("worker").unwrap();
    rules.add(Rule { stall_after: Some(Duration::from_secs(2)), ..Rule::of(name) }).unwrap();
    world.hand_over(Policy { rules, ..policy() }, at(2));
    world.pass(at(4));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
}

#[test]
fn a_state_that_does_not_hold_together_is_refused() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(1), Status::Ok));
    let bytes = postcard::to_allocvec(&world.tracker.state()).unwrap();
    let mut refused = 0;
    for place in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = bytes.clone();
            broken[place] = value;
            // Whatever it says: an error or a tracker, and no panic.
            let state: Result<TrackerState, _> = postcard::from_bytes(&broken);
            refused += usize::from(state.is_ok_and(|state| Tracker::resume(policy(), state, at(2)).is_err()));
        }
    }
    assert!(refused > 0);
}

#[test]
fn the_form_of_the_state_is_that_of_its_version() {
    let mut world = World::with(policy());
    let mut handle = Handle::connect(PID, at(0));
    for second in 1..30 {
        world.hear(handle.next(at(second), Status::Ok));
    }
    let bytes = postcard::to_allocvec(&world.tracker.state()).unwrap();
    // Another form is another version: servers of two versions must not misunderstand each other.
    assert_eq!(
        (TRACKER_STATE_VERSION, bytes.len(), varta_proto::crc32c::checksum(&bytes)),
        (7, 301, 1_667_695_220)
    );
}
