//! Claims about agents that write beats to a shared memory page, of which the server sees some.

use std::time::Duration;

use varta_proto::Status;

use crate::domain::beat::{ControlMessage, ReceivedControl};
use crate::domain::tracker::detection::arrival::{ArrivalPolicy, Bounds, Kind};
use crate::domain::tracker::tests::*;

fn ms(millis: u64) -> MonoTime {
    MonoTime::from_millis(millis)
}

impl World {
    fn attach(&mut self, pid: u32, at: MonoTime) -> FrameOutcome {
        let sender = Sender::local(pid);
        self.handle_control(&ReceivedControl { received_at: at, sender, said: ControlMessage::Attach })
    }

    /// The pids whose pages must be read.
    fn unread(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.tracker.poll_unread()).collect()
    }

    /// Advances the time until a page must be read, or to the next turn.
    fn unread_by(&mut self, to: MonoTime) -> Option<u32> {
        let next = self.tracker.poll_timeout().unwrap().max(to);
        self.tracker.handle_timeout(next);
        self.refuse_looks(next);
        self.tracker.poll_unread()
    }
}

#[test]
fn beats_between_two_looks_are_not_lost_and_neither_are_those_before_a_datagram() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, ms(0));
    let lost = |world: &World| world.tracker.agents(0..1).next().unwrap().lost;
    world.hear(handle.next(ms(1), Status::Ok));
    handle.nonce += 2;
    world.hear(handle.next(ms(2), Status::Ok));
    assert_eq!(lost(&world), 2, "all of it were datagrams");
    assert_eq!(world.attach(PID, ms(2)), FrameOutcome::Accepted);
    for (millis, status) in [(10, Status::Ok), (20, Status::Degraded), (30, Status::Degraded)] {
        handle.nonce += 1_000;
        assert_eq!(world.hear(handle.next(ms(millis), status)), FrameOutcome::Accepted);
    }
    assert_eq!(lost(&world), 2);
}

#[test]
fn nobody_is_known_by_a_page_alone() {
    let mut world = World::new();
    assert_eq!(world.attach(PID, ms(1)), FrameOutcome::OutOfOrder);
    assert!(world.tracker.is_empty());
}

#[test]
fn nobody_is_called_silent_before_its_page_was_read() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, ms(0));
    world.hear(handle.next(ms(0), Status::Ok));
    world.attach(PID, ms(0));
    let due = ms(5_000);
    while world.unread_by(due).is_none() {}
    assert_eq!(world.verdict(PID), Some(UP));
    world.hear(handle.next(due, Status::Ok));
    world.tracker.handle_read(PID, due);
    world.pass(ms(9_000));
    assert_eq!((world.verdict(PID), world.unread()), (Some(UP), vec![]));
}

#[test]
fn who_has_written_nothing_is_called_silent_once_its_page_was_read() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, ms(0));
    world.hear(handle.next(ms(0), Status::Ok));
    world.attach(PID, ms(0));
    let due = ms(5_000);
    while world.unread_by(due).is_none() {}
    world.tracker.handle_read(PID, due);
    // The verdict waits for an inspection of the process.
    assert_eq!(world.verdict(PID), Some(UP));
    world.refuse_looks(due);
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
    world.tracker.handle_read(PID, due);
    assert_eq!(world.tracker.agents(0..1).next().unwrap().stalls, 1);
}

#[test]
fn a_page_that_nobody_reads_puts_off_nothing() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, ms(0));
    world.hear(handle.next(ms(0), Status::Ok));
    world.attach(PID, ms(0));
    world.pass(ms(5_010));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
}

#[test]
fn another_process_with_the_pid_has_no_page() {
    let mut world = World::new();
    world.hear(Handle::connect(PID, ms(0)).next(ms(0), Status::Ok));
    world.attach(PID, ms(0));
    world.spawn(PID, "worker", 200);
    let mut next = Handle::connect(PID, ms(50));
    world.hear(next.next(ms(60), Status::Ok));
    next.nonce += 3;
    world.hear(next.next(ms(70), Status::Ok));
    assert_eq!(world.tracker.agents(0..1).next().unwrap().lost, 3);
}

#[test]
fn the_pace_of_looks_teaches_nothing() {
    let bounds = Bounds { mistake_every: Some(Duration::from_secs(3_600)), ..Bounds::default() };
    let arrival = ArrivalPolicy { kind: Kind::Chen(bounds), ..ArrivalPolicy::default() };
    let mut world =
        World::with(Policy { stall_after: STALL_AFTER, arrival, max_beat_rate: 0, ..Policy::default() });
    let mut handle = Handle::connect(PID, ms(0));
    let mut teach = |world: &mut World, millis: std::ops::Range<u64>| {
        millis.step_by(100).for_each(|millis| _ = world.hear(handle.next(ms(millis), Status::Ok)));
        world.tracker.agents(0..1).next().unwrap().stall_after
    };
    assert!(teach(&mut world, 0..5_000) < STALL_AFTER);
    world.attach(PID, ms(5_000));
    assert_eq!(teach(&mut world, 5_000..10_000), STALL_AFTER);
}
