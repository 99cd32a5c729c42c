//! Claims about sessions, handles, forks and successors of a process, and its terminal frame.

use varta_proto::Status;

use crate::domain::tracker::tests::*;

#[test]
fn two_handles_of_a_process_are_one_agent_and_neither_is_out_of_order() {
    let mut world = World::new();
    let mut first = Handle::connect(PID, at(0));
    let mut second = Handle::connect(PID, at(1));
    for beat in 1..50 {
        assert_eq!(world.hear(first.next(at(beat), Status::Ok)), FrameOutcome::Accepted);
        assert_eq!(world.hear(second.next(at(beat), Status::Ok)), FrameOutcome::Accepted);
    }
    assert_eq!(world.tracker.len(), 1);
    assert_eq!(world.transitions(), [(PID, UP, Cause::FirstBeat)]);
}

#[test]
fn an_agent_is_up_as_long_as_any_of_its_sessions_beats() {
    let mut world = World::new();
    let mut first = Handle::connect(PID, at(0));
    let mut second = Handle::connect(PID, at(1));
    world.hear(first.next(at(1), Status::Ok));
    for beat in 1..50 {
        world.pass(at(beat));
        world.hear(second.next(at(beat), Status::Ok));
    }
    assert_eq!(world.verdict(PID), Some(UP));
    assert_eq!(
        world.hear(first.next(at(50), Status::Ok)),
        FrameOutcome::Accepted,
        "the first is still known"
    );
}

#[test]
fn exec_and_a_recreated_handle_begin_a_session_and_take_over_the_name() {
    let mut world = World::new();
    let mut before = Handle::connect(PID, at(0));
    for second in 0..10 {
        world.hear(before.next(at(second), Status::Ok));
    }
    world.spawn(PID, "after-exec", 100);
    let mut after = Handle::connect(PID, at(11));
    assert_eq!(world.hear(after.next(at(11), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.hear(after.next(at(12), Status::Ok)), FrameOutcome::Accepted);
    let agent = world.tracker.agents(0..usize::MAX).next().unwrap();
    assert_eq!((&**agent.name, agent.last.beats), ("after-exec", 12));
    assert_eq!(world.transitions(), [(PID, UP, Cause::FirstBeat)]);
}

#[test]
fn a_forked_child_is_an_agent_of_its_own() {
    let mut world = World::new();
    world.spawn(PID + 1, "worker", 200);
    let mut parent = Handle::connect(PID, at(0));
    let mut child = Handle::connect(PID + 1, at(2));
    world.hear(parent.next(at(2), Status::Ok));
    world.hear(child.next(at(2), Status::Ok));
    for second in 3..10 {
        world.pass(at(second));
        world.hear(child.next(at(second), Status::Ok));
    }
    assert_eq!((world.verdict(PID), world.verdict(PID + 1)), (Some(Verdict::Stalled), Some(UP)));
}

#[test]
fn another_process_with_the_same_pid_is_a_new_incarnation() {
    let mut world = World::new();
    let mut old = Handle::connect(PID, at(0));
    for second in 0..20 {
        world.hear(old.next(at(second), Status::Critical));
    }
    world.spawn(PID, "successor", 900);
    let mut new = Handle::connect(PID, at(21));
    assert_eq!(world.hear(new.next(at(21), Status::Ok)), FrameOutcome::Accepted);
    let changes = world.transitions();
    assert_eq!(changes.last(), Some(&(PID, UP, Cause::Restarted)));
    let agent = world.tracker.agents(0..usize::MAX).next().unwrap();
    assert_eq!((&**agent.name, agent.last.beats), ("successor", 1));
}

#[test]
fn a_new_process_whose_first_beats_were_lost_is_recognised_by_its_start_time() {
    let mut world = World::new();
    let mut old = Handle::connect(PID, at(0));
    for second in 0..20 {
        world.hear(old.next(at(second), Status::Ok));
    }
    world.spawn(PID, "successor", 900);
    let mut new = Handle { nonce: 2, ..Handle::connect(PID, at(21)) };
    assert_eq!(world.hear(new.next(at(23), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.transitions().last(), Some(&(PID, UP, Cause::Restarted)));
}

#[test]
fn a_terminal_frame_is_critical_and_ordinary_beats_after_it_mean_that_the_agent_lives() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    let last_word = Handle { nonce: NONCE_TERMINAL, ..handle };
    assert_eq!(world.hear(last_word.frame(at(1), Status::Critical)), FrameOutcome::Accepted);
    assert_eq!(world.hear(handle.next(at(2), Status::Ok)), FrameOutcome::Accepted);
    world.pass(at(20));
    let critical = Verdict::Up(Status::Critical);
    let changes = [
        (PID, UP, Cause::FirstBeat),
        (PID, critical, Cause::Panicked),
        (PID, UP, Cause::Reported),
        (PID, Verdict::Stalled, Cause::Silent),
    ];
    assert_eq!(world.transitions(), changes);
}

#[test]
fn silence_after_a_terminal_frame_is_called_a_panic() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.hear(Handle { nonce: NONCE_TERMINAL, ..handle }.frame(at(1), Status::Critical));
    world.pass(at(20));
    assert_eq!(world.transitions().last(), Some(&(PID, Verdict::Stalled, Cause::Panicked)));
}

#[test]
fn an_agent_known_only_from_its_terminal_frame_lost_no_beats() {
    let mut world = World::new();
    let handle = Handle { nonce: NONCE_TERMINAL, ..Handle::connect(PID, at(0)) };
    world.hear(handle.frame(at(0), Status::Critical));
    assert_eq!(world.hear(Handle { nonce: 50, ..handle }.frame(at(1), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.tracker.agents(0..usize::MAX).next().unwrap().lost, 0);
}
