//! Processes that are left alone for as long as somebody holds them, and commands that nothing stays of.

use super::*;

#[test]
fn a_core_dump_is_waited_for_and_looked_at_again_but_not_for_ever() {
    let mut world = World::new([rule([(0, TERM), (5, KILL)])]);
    world.stalls(1);
    let mut jobs = 0;
    loop {
        let job = world.next();
        if job.has_waited_for_dump {
            break;
        }
        jobs += 1;
        world.comes(&job, ActionOutcome::Refused(Refusal::DumpingCore));
    }
    assert_eq!(world.now - 100, 600, "a signal is due again after ten minutes");
    assert_eq!(jobs, 600, "it is looked at each second");
    assert_eq!(world.told(), [Refusal::DumpingCore], "it is said once");
}

#[test]
fn a_dump_that_is_complete_costs_no_attempt_and_the_next_one_is_waited_for_anew() {
    let mut world = World::new([rule([(0, TERM), (5, KILL)])]);
    world.stalls(1);
    for _ in 0..300 {
        let job = world.next();
        world.comes(&job, ActionOutcome::Refused(Refusal::DumpingCore));
    }
    let job = world.next();
    assert_eq!((job.attempt, job.step), (1, 0));
    world.comes(&job, ActionOutcome::Done);
    for _ in 0..500 {
        let job = world.next();
        assert!(!job.has_waited_for_dump);
        world.comes(&job, ActionOutcome::Refused(Refusal::DumpingCore));
    }
    assert_eq!(world.told(), [Refusal::DumpingCore, Refusal::DumpingCore], "once for each step");
}

#[test]
fn who_is_frozen_or_traced_is_looked_at_until_that_ends() {
    for refusal in [Refusal::Frozen, Refusal::Traced] {
        let mut world = World::new([rule([(0, TERM)])]);
        world.stalls(1);
        for _ in 0..5_000 {
            let job = world.next();
            assert!(!job.has_waited_for_dump);
            world.comes(&job, ActionOutcome::Refused(refusal));
        }
        assert_eq!(world.told(), [refusal]);
        assert_eq!(world.does().1, TERM);
        world.recovers(1);
        world.is_idle();
    }
}

#[test]
fn refusals_that_alternate_are_each_said_once() {
    let mut world = World::new([rule([(0, TERM)])]);
    world.stalls(1);
    for _ in 0..10 {
        for refusal in [Refusal::Frozen, Refusal::Paused, Refusal::Frozen] {
            let job = world.next();
            world.comes(&job, ActionOutcome::Refused(refusal));
        }
    }
    assert_eq!(world.told(), [Refusal::Frozen, Refusal::Paused]);
}

#[test]
fn a_command_whose_processes_end_with_it_is_not_repeated() {
    let mut world = World::new([rule([(0, command()), (5, NOTIFY)])]);
    world.stalls(1);
    let job = world.next();
    world.comes(&job, ActionOutcome::DidNotStay);
    assert_eq!(world.does(), (5, NOTIFY), "later steps are taken");
    assert!(world.job().is_none());
    while let Some(due) = world.planner.poll_timeout() {
        world.now = due.as_nanos().div_ceil(1_000_000_000);
        assert!(world.job().is_none(), "nothing more is done");
    }
    assert_eq!(world.told(), [Refusal::GivenUp]);
    world.stalls(1);
    assert_eq!(world.told(), [Refusal::GivenUp], "nor when it falls silent again");
    // Once it has been well for long enough, everything is as at first.
    world.recovers(1);
    world.now += 700;
    world.recovers(2);
    world.stalls(1);
    let job = world.next();
    assert_eq!((job.attempt, job.action().clone()), (1, command()));
}
