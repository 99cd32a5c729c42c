//! Faults that simulated worlds once found, each in the fewest lines that show it.

use std::time::Duration;
use varta_proto::Status;
use varta_proto::control::GoodbyeReason;

use crate::domain::beat::{ControlMessage, ReceivedControl};
use crate::domain::tracker::tests::*;

/// A session of an agent on another host.
struct Remote {
    sender: Sender,
    handle: Handle,
}

impl Remote {
    fn connect(at: MonoTime) -> Self {
        let source = ([10, 0, 0, 1], 4_000).into();
        Remote { sender: Sender::udp(source, PID), handle: Handle::connect(PID, at) }
    }

    fn beat(&mut self, at: MonoTime) -> ReceivedBeat {
        ReceivedBeat { sender: self.sender, ..self.handle.next(at, Status::Ok) }
    }

    fn goodbye(&self, at: MonoTime) -> ReceivedControl {
        let timestamp = u64::try_from(at.since(self.handle.connected_at).as_nanos()).unwrap() + 1_000;
        let said = ControlMessage::Goodbye {
            nonce: self.handle.nonce,
            timestamp,
            reason: Some(GoodbyeReason::Shutdown),
        };
        ReceivedControl { received_at: at, sender: self.sender, said }
    }
}

fn late(beat: ReceivedBeat, by: Duration) -> ReceivedBeat {
    ReceivedBeat { received_at: beat.received_at + by, ..beat }
}

const MILLIS_100: Duration = Duration::from_millis(100);

#[test]
fn a_goodbye_that_overtakes_the_last_beat_is_still_the_last_word() {
    let mut world = World::new();
    let mut remote = Remote::connect(at(0));
    world.hear(remote.beat(at(0)));
    let overtaken = remote.beat(at(1));
    world.handle_control(&remote.goodbye(at(1)));
    world.hear(late(overtaken, MILLIS_100));
    world.pass(at(30));
    assert_eq!(world.verdict(PID), Some(Verdict::Gone));
}

#[test]
fn a_first_frame_that_comes_twice_does_not_outlive_the_goodbye() {
    let mut world = World::new();
    let mut remote = Remote::connect(at(0));
    let first = remote.beat(at(0));
    world.hear(first);
    world.hear(late(first, MILLIS_100));
    for second in 1..4 {
        world.hear(remote.beat(at(second)));
    }
    world.handle_control(&remote.goodbye(at(4)));
    assert_eq!(world.verdict(PID), Some(Verdict::Gone));
}

#[test]
fn the_only_frame_before_a_goodbye_does_not_outlive_it_when_it_comes_again() {
    let mut world = World::new();
    let mut remote = Remote::connect(at(0));
    let only = remote.beat(at(0));
    world.hear(only);
    world.handle_control(&remote.goodbye(MonoTime::from_millis(300)));
    assert_eq!(world.hear(late(only, 4 * MILLIS_100)), FrameOutcome::Duplicate);
    world.pass(at(30));
    assert_eq!(world.verdict(PID), Some(Verdict::Gone));
}

#[test]
fn a_first_frame_that_is_overtaken_does_not_outlive_the_goodbye() {
    let mut world = World::new();
    let mut remote = Remote::connect(at(0));
    let first = remote.beat(at(0));
    world.hear(remote.beat(at(1)));
    world.hear(late(first, Duration::from_millis(1_100)));
    for second in 2..5 {
        world.hear(remote.beat(at(second)));
    }
    world.handle_control(&remote.goodbye(at(5)));
    assert_eq!(world.verdict(PID), Some(Verdict::Gone));
}

#[test]
fn frames_that_are_overtaken_are_out_of_order_however_many_there_are() {
    let mut world = World::new();
    let mut remote = Remote::connect(at(0));
    let beats: Vec<_> = (0..6).map(|second| remote.beat(at(second))).collect();
    let mut arrives = |index: usize, millis: u64| {
        world.hear(ReceivedBeat { received_at: MonoTime::from_millis(millis), ..beats[index] })
    };
    assert_eq!(arrives(0, 0), FrameOutcome::Accepted);
    assert_eq!(arrives(2, 2_010), FrameOutcome::Accepted);
    assert_eq!(arrives(1, 2_020), FrameOutcome::OutOfOrder);
    assert_eq!(arrives(4, 4_010), FrameOutcome::Accepted);
    assert_eq!(arrives(3, 4_020), FrameOutcome::OutOfOrder);
}

#[test]
fn what_comes_late_of_an_older_handle_does_not_silence_the_new_one() {
    let mut world = World::new();
    let mut remote = Remote::connect(at(0));
    for second in 0..20 {
        world.hear(remote.beat(at(second)));
    }
    let overtaken = remote.beat(at(20));
    world.hear(remote.beat(at(21)));
    remote.handle = Handle::connect(PID, at(22));
    world.hear(remote.beat(at(22)));
    world.hear(late(overtaken, Duration::from_millis(2_100)));
    for second in 23..40 {
        world.pass(at(second));
        assert_eq!(world.hear(remote.beat(at(second))), FrameOutcome::Accepted, "at second {second}");
    }
    assert_eq!(world.verdict(PID), Some(UP));
}

#[test]
fn a_new_handle_may_say_by_chance_what_the_old_one_said_last() {
    let mut world = World::new();
    for connected_at in [0, 100] {
        let mut handle = Handle::connect(PID, at(connected_at));
        for second in 0..5 {
            assert_eq!(
                world.hear(handle.next(at(connected_at + second), Status::Ok)),
                FrameOutcome::Accepted
            );
        }
    }
}

#[test]
fn blindness_before_a_beat_does_not_put_off_its_deadline() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    // The order in which the engine does it: it first handles what has arrived.
    world.hear(handle.next(at(60), Status::Ok));
    world.tracker.handle_observer_gap(at(1), at(60));
    world.pass(at(61));
    world.tracker.handle_observer_gap(at(61), MonoTime::from_millis(61_100));
    world.pass(at(70));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled), "it was last heard at second 60, and has five");
}

#[test]
fn a_beat_after_blindness_is_missed_in_time_again() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.hear(handle.next(at(31), Status::Ok));
    world.tracker.handle_observer_gap(at(1), at(31));
    world.pass(at(32));
    world.tracker.handle_observer_gap(at(32), MonoTime::from_millis(32_100));
    world.pass(at(37));
    world.hear(handle.next(at(37), Status::Ok));
    world.pass(at(43));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled), "it was last heard at second 37, and has five");
}
