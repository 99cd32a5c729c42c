//! Claims about sessions, handles, forks and successors of a process, and its terminal frame.

use varta_proto::Status;

use crate::domain::process::ProcessId;
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

/// The process with this pid has ended, and another was started in the same tick of the clock.
fn another_in_the_same_tick(world: &mut World) -> [ProcessId; 2] {
    [1, 2].map(|inode| {
        let tag = PidfdTag::of_inode(inode);
        world.processes.processes.entry(PID).and_modify(|process| process.tag = tag);
        ProcessId { tag, ..ProcessId::new(PID, NonZeroU64::new(100).unwrap()) }
    })
}

#[test]
fn another_process_with_the_same_pid_that_was_started_in_the_same_tick_is_a_new_incarnation() {
    // In the order in which the kernel tells of both, and the other way round.
    for is_late in [false, true] {
        let mut world = World::new();
        let [old, _] = another_in_the_same_tick(&mut world);
        world.processes.processes.entry(PID).and_modify(|process| process.tag = old.tag);
        world.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
        let [old, new] = another_in_the_same_tick(&mut world);
        let exit = |world: &mut World, process| {
            let death = ExitStatus::Killed { signal: 9, core_dumped: false };
            world.tracker.handle_exit(process, death, Lineage::default(), at(1), at(1));
        };
        if !is_late {
            exit(&mut world, old);
        }
        let soon = at(1) + Duration::from_millis(5);
        assert_eq!(world.hear(Handle::connect(PID, at(1)).next(soon, Status::Ok)), FrameOutcome::Accepted);
        if is_late {
            exit(&mut world, old);
        }
        assert_eq!(world.verdict(PID), Some(UP), "{is_late}");
        assert_eq!(world.transitions().last(), Some(&(PID, UP, Cause::Restarted)));
        world.refuse_looks(at(1));
        assert_eq!(world.requests.last(), Some(&TrackerRequest::Watch(new)));
        exit(&mut world, new);
        assert_eq!(world.verdict(PID), Some(Verdict::Down));
    }
}

#[test]
fn a_process_whose_inode_cannot_be_read_is_known_by_its_start_time() {
    let mut world = World::new();
    let [old, _] = another_in_the_same_tick(&mut world);
    world.processes.processes.entry(PID).and_modify(|process| process.tag = old.tag);
    let mut handle = Handle::connect(PID, at(1));
    world.hear(handle.next(at(1), Status::Ok));
    for tag in [PidfdTag::UNKNOWN, old.tag] {
        world.processes.processes.entry(PID).and_modify(|process| process.tag = tag);
        // Of another session, so that the process is looked up.
        world.hear(Handle::connect(PID, at(2)).next(at(2), Status::Ok));
    }
    assert_eq!(world.transitions(), [(PID, UP, Cause::FirstBeat)]);
    // It is still known which one it was.
    another_in_the_same_tick(&mut world);
    world.hear(Handle::connect(PID, at(3)).next(at(3), Status::Ok));
    assert_eq!(world.transitions(), [(PID, UP, Cause::Restarted)]);
}

#[test]
fn that_a_process_has_gone_says_nothing_of_the_one_that_took_its_pid_in_the_same_tick() {
    let mut world = World::new();
    let [old, new] = another_in_the_same_tick(&mut world);
    world.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
    world.tracker.handle_absence(PID, Some(old), ExitStatus::Unknown, at(1));
    world.tracker.handle_absence(PID, None, ExitStatus::Unknown, at(1));
    assert_eq!(world.verdict(PID), Some(UP));
    world.tracker.handle_absence(PID, Some(new), ExitStatus::Unknown, at(1));
    assert_eq!(world.verdict(PID), Some(Verdict::Gone));
}
