//! Claims about beats that are lost on the way: dropped by the kernel on the network's side, refused by it when
//! the queue of the Unix socket is full.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use crate::domain::beat::{ControlMessage, ReceivedControl, Transport};
use crate::domain::process::{Dossier, Explanation, ProcessActivity, ProcessId, ProcessSnapshot, State};
use crate::domain::tracker::tests::*;

/// A beat of the same session by another way: plaintext UDP.
fn by_udp(beat: ReceivedBeat) -> ReceivedBeat {
    ReceivedBeat { sender: Sender::udp(([10, 0, 0, 7], 4_000).into(), PID), ..beat }
}

/// An agent of another host that beat at `at`.
fn remote_world(at: MonoTime) -> (World, Handle) {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at);
    world.hear(by_udp(handle.next(at, Status::Ok)));
    world.transitions();
    (world, handle)
}

#[test]
fn who_is_silent_while_beats_are_lost_on_the_way_has_one_more_chance_and_no_second() {
    let (mut world, _) = remote_world(at(1));
    world.tracker.handle_loss(Transport::Udp, at(3));
    world.pass(at(7));
    assert_eq!(world.transitions(), [(PID, Verdict::Unknown, Cause::Lossy)]);
    world.tracker.handle_loss(Transport::Udp, at(8));
    world.pass(at(10));
    assert_eq!(world.transitions(), []);
    world.pass(at(12));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Lossy)]);
}

#[test]
fn who_was_given_a_chance_and_used_it_has_another_the_next_time() {
    let (mut world, mut handle) = remote_world(at(0));
    for start in [1, 20] {
        world.hear(by_udp(handle.next(at(start), Status::Ok)));
        world.tracker.handle_loss(Transport::Udp, at(start + 1));
        world.pass(at(start + 6));
        assert_eq!(world.transitions(), [(PID, Verdict::Unknown, Cause::Lossy)]);
        world.hear(by_udp(handle.next(at(start + 7), Status::Ok)));
        assert_eq!(world.transitions(), [(PID, UP, Cause::Recovered)]);
    }
}

#[test]
fn what_is_lost_on_another_way_or_was_before_the_last_beat_is_no_excuse() {
    for (lost, full) in [(Transport::Unix, Transport::Udp), (Transport::Udp, Transport::Unix)] {
        let (mut world, mut handle) =
            if full == Transport::Unix { World::with_agent() } else { remote_world(at(0)) };
        world.tracker.handle_loss(full, at(2));
        let beat = handle.next(at(3), Status::Ok);
        world.hear(if full == Transport::Unix { beat } else { by_udp(beat) });
        world.tracker.handle_loss(lost, at(4));
        world.pass(at(9));
        assert_eq!(world.verdict(PID), Some(Verdict::Stalled), "{lost:?}");
    }
}

#[test]
fn while_the_queue_is_full_nobody_is_called_stalled_and_a_stall_timeout_after_it_whoever_is_silent() {
    let (mut world, _) = World::with_agent();
    world.transitions();
    for second in 1..60 {
        world.pass(at(second));
        world.tracker.handle_loss(Transport::Unix, at(second));
    }
    assert_eq!(world.transitions(), [(PID, Verdict::Unknown, Cause::QueueFull)]);
    world.pass(at(63));
    assert_eq!(world.transitions(), [], "room for four seconds");
    world.pass(at(64) + Duration::from_millis(1));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Silent)], "room since second 59");
}

#[test]
fn an_agent_whose_beats_come_through_again_was_never_called_stalled() {
    let (mut world, mut handle) = World::with_agent();
    world.transitions();
    world.tracker.handle_loss(Transport::Unix, at(4));
    world.pass(at(8));
    assert_eq!(world.transitions(), [(PID, Verdict::Unknown, Cause::QueueFull)]);
    world.hear(handle.next(at(8), Status::Ok));
    assert_eq!(world.transitions(), [(PID, UP, Cause::Recovered)]);
    world.pass(at(14));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Silent)], "as ever");
}

#[test]
fn a_full_queue_hides_no_death_and_no_goodbye() {
    for ends in [true, false] {
        let (mut world, handle) = World::with_agent();
        world.tracker.handle_loss(Transport::Unix, at(4));
        world.pass(at(8));
        world.transitions();
        if ends {
            let process = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
            let killed = ExitStatus::Killed { signal: 9, core_dumped: false };
            world.tracker.handle_exit(process, killed, Lineage::default(), at(8), at(8));
            assert_eq!(world.transitions(), [(PID, Verdict::Down, Cause::Killed { signal: 9 })]);
        } else {
            let said =
                ControlMessage::Goodbye { nonce: handle.nonce, timestamp: 8_000_001_000, reason: None };
            world.handle_control(&ReceivedControl { received_at: at(8), sender: Sender::local(PID), said });
            assert_eq!(world.verdict(PID), Some(Verdict::Gone));
        }
    }
}

#[test]
fn a_process_that_is_seen_to_be_unable_to_beat_is_stalled_whatever_the_queue() {
    let (mut world, _) = World::with_agent();
    world.transitions();
    world.tracker.handle_loss(Transport::Unix, at(4));
    let deadline = at(6) + Duration::from_millis(1);
    while world.tracker.poll_timeout().is_some_and(|at| at <= deadline) {
        world.tracker.handle_timeout(deadline);
        let full = |request: &TrackerRequest| {
            matches!(request, TrackerRequest::Look { depth: InspectionDepth::Full, .. })
        };
        if std::iter::from_fn(|| world.tracker.poll_request()).any(|request| full(&request)) {
            break;
        }
    }
    let process = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
    let look = ProcessSnapshot {
        at: at(6),
        pid: PID,
        start_time: process.start_time,
        command: "worker".into(),
        state: State::Stopped,
        death: None,
        threads: 1,
        cpu: Duration::ZERO,
        details: None,
    };
    let explanation = Explanation { activity: ProcessActivity::Stopped, sentence: "a signal stopped it" };
    let dossier = Arc::new(Dossier { explanation, ..Dossier::new(look, None) });
    world.tracker.handle_evidence(process, Some(dossier), deadline);
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Stopped)]);
}
