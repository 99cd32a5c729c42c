//! Claims about beats: which agent they belong to, and what they change.

use std::time::Duration;

use varta_proto::Status;

use crate::domain::tracker::tests::*;

#[test]
fn a_first_beat_makes_an_agent_with_the_name_that_the_kernel_knows() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(1));
    assert_eq!(world.hear(handle.next(at(1), Status::Ok)), FrameOutcome::Accepted);
    let transition = world.tracker.poll_transition().unwrap();
    assert_eq!((transition.from, transition.to, transition.cause), (None, UP, Cause::FirstBeat));
    assert_eq!(&*transition.agent.name, "worker");
    assert_eq!(world.tracker.poll_transition(), None);
}

#[test]
fn a_silent_agent_is_stalled_once_and_not_a_tick_late() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(1));
    world.hear(handle.next(at(1), Status::Degraded));
    world.pass(MonoTime::from_millis(5_999));
    assert_eq!(world.transitions().len(), 1, "only its first beat");

    world.pass(at(60));
    let transition = world.tracker.poll_transition().unwrap();
    assert_eq!((transition.to, transition.cause), (Verdict::Stalled, Cause::Silent));
    assert!(transition.at >= at(6) && transition.at <= at(6) + Duration::from_millis(1), "{}", transition.at);
    assert_eq!(transition.detection_latency, Some(transition.at - at(6)));
    assert_eq!(transition.silence, transition.at - at(1));
    assert_eq!((transition.last.status, transition.last.payload), (Status::Degraded, 7));
    assert_eq!(world.tracker.poll_transition(), None);
}

#[test]
fn an_agent_that_beats_in_time_is_never_stalled() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    for second in (0..4_000).step_by(4) {
        world.pass(at(second));
        world.hear(handle.next(at(second), Status::Ok));
    }
    assert_eq!(world.transitions(), [(PID, UP, Cause::FirstBeat)]);
}

#[test]
fn a_beat_after_the_deadline_is_a_recovery() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.pass(at(20));
    world.hear(handle.next(at(20), Status::Ok));
    world.pass(at(24));
    let changes =
        [(PID, UP, Cause::FirstBeat), (PID, Verdict::Stalled, Cause::Silent), (PID, UP, Cause::Recovered)];
    assert_eq!(world.transitions(), changes);
    world.pass(at(26));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Silent)], "its deadline runs anew");
}

#[test]
fn a_changed_status_is_a_transition_and_a_repeated_one_is_not() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    for status in [Status::Ok, Status::Ok, Status::Critical, Status::Critical, Status::Ok] {
        world.hear(handle.next(at(1), status));
    }
    let critical = Verdict::Up(Status::Critical);
    let changes = [(PID, UP, Cause::FirstBeat), (PID, critical, Cause::Reported), (PID, UP, Cause::Reported)];
    assert_eq!(world.transitions(), changes);
}

#[test]
fn a_duplicate_beat_does_not_extend_the_deadline() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.hear(handle.next(at(1), Status::Ok));
    let again = ReceivedBeat { received_at: at(4), ..handle.frame(at(1), Status::Ok) };
    assert_eq!(world.hear(again), FrameOutcome::Duplicate);
    world.pass(at(7));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
}

#[test]
fn a_beat_refused_for_its_rate_proves_that_the_agent_lives() {
    let mut world = World::with(Policy { max_total_rate: 1, max_beat_rate: 0, ..Policy::default() });
    let mut handles = [10, 11, 12].map(|pid| Handle::connect(pid, at(0)));
    for (second, handle) in (0..).zip(&mut handles) {
        assert_eq!(world.hear(handle.next(at(second), Status::Ok)), FrameOutcome::Accepted);
    }
    for second in 3..30 {
        world.pass(at(second));
        for handle in &mut handles {
            world.hear(handle.next(at(second), Status::Ok));
        }
    }
    assert_eq!(world.tracker.population()[Verdict::STALLED], 0);
    assert_eq!(world.transitions().len(), 3, "only their first beats");
}

#[test]
fn beats_out_of_order_with_ever_another_status_are_limited_and_ask_little_of_the_kernel() {
    let mut world = World::with(Policy { max_beat_rate: 10, ..Policy::default() });
    let mut handle = Handle::connect(PID, at(0));
    for second in 0..20 {
        world.hear(handle.next(at(second), Status::Ok));
    }
    let asked = world.processes.questions;
    for number in 0..1_000 {
        let old = Handle { nonce: 2 + number % 10, ..handle };
        world.hear(ReceivedBeat { received_at: at(20), ..old.frame(at(3), Status::Critical) });
    }
    assert!(world.processes.questions - asked <= 10, "{}", world.processes.questions - asked);
}

#[test]
fn a_stalled_agent_that_sends_a_terminal_frame_panicked_and_did_not_recover() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.pass(at(10));
    world.transitions();
    world.hear(Handle { nonce: NONCE_TERMINAL, ..handle }.frame(at(11), Status::Critical));
    assert_eq!(world.transitions(), [(PID, Verdict::Up(Status::Critical), Cause::Panicked)]);
}

#[test]
fn a_panic_is_told_once_also_of_an_agent_that_was_critical_before() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Critical));
    world.transitions();
    for _ in 0..2 {
        world.hear(Handle { nonce: NONCE_TERMINAL, ..handle }.frame(at(1), Status::Critical));
    }
    assert_eq!(world.transitions(), [(PID, Verdict::Up(Status::Critical), Cause::Panicked)]);
}

#[test]
fn blindness_that_comes_again_and_again_does_not_put_off_a_verdict_for_ever() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    let mut now = at(0);
    while world.verdict(PID) == Some(UP) {
        let from = now + Duration::from_secs(3);
        world.pass(from);
        now = from + Duration::from_secs(1);
        world.tracker.handle_observer_gap(from, now);
        assert!(
            now < at(20),
            "a quarter of the time is blind, so a verdict takes a quarter longer and one stall-after"
        );
    }
}

#[test]
fn an_old_beat_does_not_extend_the_deadline() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    let old: Vec<_> = (0..4).map(|second| handle.next(at(second), Status::Ok)).collect();
    for beat in &old {
        world.hear(*beat);
    }
    assert_eq!(world.hear(ReceivedBeat { received_at: at(7), ..old[1] }), FrameOutcome::OutOfOrder);
    world.pass(at(9));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
}

#[test]
fn a_nonce_that_goes_round_is_counted_and_accepted() {
    let mut world = World::new();
    let mut handle = Handle { nonce: NONCE_TERMINAL - 2, ..Handle::connect(PID, at(0)) };
    world.hear(handle.next(at(0), Status::Ok));
    assert_eq!(handle.nonce, NONCE_TERMINAL - 1);
    handle.nonce = 0;
    assert_eq!(world.hear(handle.frame(at(1), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.hear(handle.next(at(2), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.tracker.statistics().nonce_wraps, 1);
    assert_eq!(world.tracker.agents(0..usize::MAX).next().unwrap().lost, 0);
}

#[test]
fn beats_that_did_not_arrive_are_counted_by_their_nonces() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    handle.nonce += 3;
    world.hear(handle.next(at(1), Status::Ok));
    assert_eq!(world.tracker.agents(0..usize::MAX).next().unwrap().lost, 3);
}

#[test]
fn too_many_beats_are_refused_but_never_a_change_or_a_last_word() {
    let mut world = World::with(Policy { max_beat_rate: 10, ..Policy::default() });
    let mut handle = Handle::connect(PID, at(0));
    let mut send = |world: &mut World, status| world.hear(handle.next(at(1), status));
    let accepted = (0..100).filter(|_| send(&mut world, Status::Ok) == FrameOutcome::Accepted).count();
    assert_eq!(accepted, 1 + 10, "the first beat introduces the agent");
    assert_eq!(send(&mut world, Status::Ok), FrameOutcome::RateLimitedAgent);
    assert_eq!(send(&mut world, Status::Critical), FrameOutcome::Accepted);
    assert_eq!(send(&mut world, Status::Critical), FrameOutcome::RateLimitedAgent);
    let last_word = Handle { nonce: NONCE_TERMINAL, ..handle };
    assert_eq!(world.hear(last_word.frame(at(1), Status::Critical)), FrameOutcome::Accepted);
    assert_eq!(world.hear(handle.next(at(60), Status::Critical)), FrameOutcome::Accepted);
    assert_eq!(world.tracker.agents(0..usize::MAX).next().unwrap().lost, 0, "what was refused did arrive");
}

#[test]
fn the_limit_for_all_holds_for_all_together() {
    let mut world = World::with(Policy { max_total_rate: 10, max_beat_rate: 0, ..Policy::default() });
    let outcomes: Vec<_> =
        (0..20).map(|pid| world.hear(Handle::connect(1000 + pid, at(1)).next(at(1), Status::Ok))).collect();
    assert!(outcomes[..10].iter().all(|outcome| *outcome == FrameOutcome::Accepted));
    assert!(outcomes[10..].iter().all(|outcome| *outcome == FrameOutcome::RateLimitedGlobal));
}

#[test]
fn beyond_the_most_agents_new_ones_are_refused_and_known_ones_are_not() {
    let mut world = World::with(Policy { max_agents: 2, ..Policy::default() });
    let mut handles = [10, 11, 12].map(|pid| Handle::connect(pid, at(0)));
    let [first, second, third] = &mut handles;
    assert_eq!(world.hear(first.next(at(0), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.hear(second.next(at(0), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.hear(third.next(at(0), Status::Ok)), FrameOutcome::Capacity);
    assert_eq!(world.hear(first.next(at(1), Status::Ok)), FrameOutcome::Accepted);
}

#[test]
fn a_silent_agent_is_forgotten_in_time_and_makes_room() {
    let hour = Duration::from_secs(3_600);
    let mut world = World::with(Policy { max_agents: 1, forget_after: hour, ..Policy::default() });
    world.hear(Handle::connect(10, at(0)).next(at(0), Status::Ok));
    world.pass(at(3_599));
    assert_eq!(world.tracker.len(), 1);
    world.pass(at(3_601));
    assert_eq!((world.tracker.len(), world.tracker.statistics().forgotten), (0, 1));
    assert_eq!(world.tracker.poll_timeout(), None, "nobody is left to wait for");
    assert_eq!(
        world.hear(Handle::connect(11, at(3_602)).next(at(3_602), Status::Ok)),
        FrameOutcome::Accepted
    );
    assert_eq!(world.tracker.slots(), 1, "the slot is used again");
}

#[test]
fn a_blind_time_accuses_nobody_and_gives_each_agent_its_whole_time_anew() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.tracker.handle_observer_gap(at(1), at(30));
    world.pass(at(34));
    assert!(!world.verdict(PID).unwrap().is_alarm());
    world.pass(at(36));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled), "who stays silent is stalled after it");
}

#[test]
fn a_stamp_older_than_the_last_is_taken_as_equal_and_counted() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(10), Status::Ok));
    let mut late = handle.next(at(11), Status::Ok);
    late.received_at = at(9);
    assert_eq!(world.hear(late), FrameOutcome::Accepted);
    assert_eq!(world.tracker.statistics().clamped_stamps, 1);
    assert_eq!(world.tracker.agents(0..usize::MAX).next().unwrap().last_beat, at(10));
}

#[test]
fn ordinary_beats_ask_nothing_of_the_kernel() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    for second in 0..1_000 {
        world.hear(handle.next(at(second), Status::Ok));
    }
    assert_eq!(world.processes.questions, 1);
}

#[test]
fn many_expiries_are_spread_over_turns_and_none_is_lost() {
    let policy = Policy {
        stall_after: STALL_AFTER,
        max_beat_rate: 0,
        mass_silence_min_agents: 0,
        ..Policy::default()
    };
    let mut world = World::with(policy);
    for pid in 2..20_002 {
        world.hear_quietly(Handle::connect(pid, at(0)).next(at(0), Status::Ok));
        world.tracker.poll_transition().unwrap();
    }
    let mut stalled = 0;
    let mut turns = 0;
    while world.tracker.population()[Verdict::UP] > 0 {
        world.tracker.handle_timeout(at(6));
        world.refuse_looks(at(6));
        let concluded = std::iter::from_fn(|| world.tracker.poll_transition()).count();
        assert!(concluded <= LOOKS_PER_TURN);
        stalled += concluded;
        turns += 1;
    }
    assert_eq!(stalled, 20_000);
    assert!(turns >= 20_000 / LOOKS_PER_TURN);
}

#[test]
fn names_that_nobody_has_any_more_are_dropped() {
    let minute = Duration::from_secs(60);
    let mut world = World::with(Policy { forget_after: minute, ..Policy::default() });
    for round in 0..20_u32 {
        for number in 0..500 {
            let pid = 2 + number;
            world.spawn(pid, &format!("job-{round}-{number}"), u64::from(1 + round));
            let now = at(u64::from(round) * 100);
            world.hear_quietly(Handle::connect(pid, now).next(now, Status::Ok));
        }
        world.pass(at(u64::from(round) * 100 + 99));
        world.transitions();
    }
    assert!(world.tracker.names.len() <= 500, "{}", world.tracker.names.len());
}
